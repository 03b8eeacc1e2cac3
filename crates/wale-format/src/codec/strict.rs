//! The rules that every frame decoder shares: end means whole and nothing after it; a failure stays.

use std::io::{self, BufRead, BufReader, Read};

/// A decoder of one frame that can be asked about its source.
pub(super) trait FrameDecoder {
    /// Name of the format for messages.
    const NAME: &'static str;
    /// Decodes into `out`; `Ok(0)` when it believes that the frame is over.
    fn decode(&mut self, out: &mut [u8]) -> io::Result<usize>;
    /// Whether the end of the frame has really been seen.
    fn is_complete(&self) -> bool;
    /// The source below the decoder, at the first byte that the decoder did not take.
    fn source(&mut self) -> &mut Source;
}

/// A boxed, buffered source that remembers whether it was the one that failed.
pub(super) struct Source {
    reader: BufReader<Box<dyn Read + Send>>,
    failed: bool,
}

/// One storage chunk of a good size for the codecs: zstd's own block size is 128 KiB.
const SOURCE_BUFFER_BYTES: usize = 128 << 10;

impl Source {
    pub(super) fn new<R: Read + Send + 'static>(reader: R) -> Self {
        let reader: Box<dyn Read + Send> = Box::new(reader);
        Self {
            reader: BufReader::with_capacity(SOURCE_BUFFER_BYTES, reader),
            failed: false,
        }
    }

    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::Interrupted
        {
            self.failed = true;
        }
        result
    }
}

impl Read for Source {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let result = self.reader.read(out);
        self.note(result)
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        // zstd's adapter does not repeat an interrupted read, so it is repeated here.
        while let Err(error) = self.reader.fill_buf() {
            if error.kind() != io::ErrorKind::Interrupted {
                self.failed = true;
                return Err(error);
            }
        }
        Ok(self.reader.buffer())
    }

    fn consume(&mut self, amount: usize) {
        self.reader.consume(amount);
    }
}

enum State {
    Open,
    Ended,
    Failed,
}

/// Holds a frame decoder to the rules of this module.
pub(super) struct Strict<D> {
    decoder: D,
    state: State,
}

impl<D: FrameDecoder> Strict<D> {
    pub(super) const fn new(decoder: D) -> Self {
        Self {
            decoder,
            state: State::Open,
        }
    }

    /// Keeps errors of the source as they are; calls everything else damage.
    fn explain(&mut self, error: io::Error) -> io::Error {
        if self.decoder.source().failed {
            return error;
        }
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return truncated(D::NAME);
        }
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} stream is damaged: {error}", D::NAME),
        )
    }

    fn check_end(&mut self) -> io::Result<()> {
        if !self.decoder.is_complete() {
            return Err(truncated(D::NAME));
        }
        if !self.decoder.source().fill_buf()?.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} stream is followed by other bytes", D::NAME),
            ));
        }
        Ok(())
    }
}

fn truncated(name: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("{name} stream is truncated"),
    )
}

impl<D: FrameDecoder> Read for Strict<D> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        match self.state {
            State::Open => {}
            State::Ended => return Ok(0),
            State::Failed => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} stream has already failed", D::NAME),
                ));
            }
        }
        let result = match self.decoder.decode(out) {
            Ok(0) => self.check_end().map(|()| 0),
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => Err(self.explain(error)),
        };
        self.state = if result.is_ok() {
            State::Ended
        } else {
            State::Failed
        };
        result
    }
}
