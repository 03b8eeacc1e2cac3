//! The rules that every frame decoder shares: end means whole and nothing after it; a failure stays.

use std::io::{self, BufRead, BufReader, Read};

use super::encrypted;

/// A decoder of one frame that can be asked about its source.
pub(super) trait FrameDecoder {
    /// Name of the format for messages.
    const NAME: &'static str;
    /// What every frame begins with.
    const MAGIC: &'static [u8];
    /// Decodes into `out`; `Ok(0)` when it believes that the frame is over.
    fn decode(&mut self, out: &mut [u8]) -> io::Result<usize>;
    /// Whether the end of the frame has really been seen.
    fn is_complete(&self) -> bool;
    /// The source below the decoder, at the first byte that the decoder did not take.
    fn source(&mut self) -> &mut Source;
}

/// A boxed, buffered source that keeps its own error aside.
///
/// The libraries swallow some errors of their source (a decoder may take `UnexpectedEof` for the end) and
/// wrap others. So they are shown a stand-in, and the true error is kept for the caller.
pub(super) struct Source {
    reader: BufReader<Box<dyn Read + Send>>,
    error: Option<io::Error>,
}

/// One storage chunk of a good size for the codecs: zstd's own block size is 128 KiB.
const SOURCE_BUFFER_BYTES: usize = 128 << 10;

impl Source {
    pub(super) fn new<R: Read + Send + 'static>(reader: R) -> Self {
        let reader: Box<dyn Read + Send> = Box::new(reader);
        Self {
            reader: BufReader::with_capacity(SOURCE_BUFFER_BYTES, reader),
            error: None,
        }
    }

    fn keep(&mut self, error: io::Error) -> io::Error {
        self.error = Some(error);
        io::Error::other("the source failed")
    }
}

impl Read for Source {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.reader.read(out) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(|error| self.keep(error)),
            }
        }
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        // zstd's adapter does not repeat an interrupted read, so it is repeated here.
        while let Err(error) = self.reader.fill_buf() {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(self.keep(error));
            }
        }
        Ok(self.reader.buffer())
    }

    fn consume(&mut self, amount: usize) {
        self.reader.consume(amount);
    }
}

/// The error for what stands behind the end.
pub(super) fn followed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is followed by other bytes")
}

enum StrictState {
    New,
    Open,
    Ended,
    Failed,
}

/// Holds a frame decoder to the rules of this module.
pub(super) struct Strict<D> {
    decoder: D,
    state: StrictState,
}

impl<D: FrameDecoder> Strict<D> {
    pub(super) const fn new(decoder: D) -> Self {
        Self {
            decoder,
            state: StrictState::New,
        }
    }

    /// Keeps errors of the source as they are; calls everything else damage.
    fn explain(&mut self, error: &io::Error) -> io::Error {
        if let Some(own) = self.decoder.source().error.take() {
            return own;
        }
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return io::Error::new(error.kind(), format!("{} stream is truncated", D::NAME));
        }
        if error.kind() == io::ErrorKind::OutOfMemory {
            return io::Error::new(error.kind(), error.to_string());
        }
        if error.kind() == io::ErrorKind::Unsupported {
            let message = format!("no {} stream: {error}", D::NAME);
            return io::Error::new(error.kind(), message);
        }
        let message = format!("{} stream is damaged: {error}", D::NAME);
        io::Error::new(io::ErrorKind::InvalidData, message)
    }

    /// Refuses what another tool may have encrypted: other tools give it the extension of the codec.
    fn recognise(&mut self) -> io::Result<()> {
        let seen = self.decoder.source().fill_buf()?;
        encrypted::refuse_stranger(D::MAGIC, seen)
    }

    fn check_end(&mut self) -> io::Result<()> {
        if !self.decoder.is_complete() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !self.decoder.source().fill_buf()?.is_empty() {
            return Err(followed());
        }
        Ok(())
    }
}

impl<D: FrameDecoder> Read for Strict<D> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        match self.state {
            StrictState::New | StrictState::Open => {}
            StrictState::Ended => return Ok(0),
            StrictState::Failed => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} stream has already failed", D::NAME),
                ));
            }
        }
        let recognised = match self.state {
            StrictState::New => self.recognise(),
            _ => Ok(()),
        };
        self.state = StrictState::Open;
        let result = match recognised.and_then(|()| self.decoder.decode(out)) {
            Ok(0) => self.check_end().map(|()| 0),
            Ok(count) => return Ok(count),
            Err(error) => Err(error),
        };
        let result = result.map_err(|error| self.explain(&error));
        self.state = if result.is_ok() {
            StrictState::Ended
        } else {
            StrictState::Failed
        };
        result
    }
}
