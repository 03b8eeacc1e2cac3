//! What every server of objects is to a test, whatever it speaks.

/// A running server with an empty bucket, or what it calls one.
pub trait StoreServer {
    /// The loopback port it listens on.
    fn port(&self) -> u16;

    /// wale's settings for an archive at `path` of the bucket, by way of the loopback port `port`: the server's own, or
    /// that of a proxy before it.
    fn settings(port: u16, path: &str) -> Vec<(String, String)>;

    /// The names of the objects, in order.
    fn objects(&self) -> Vec<String>;

    /// The content of an object.
    fn content(&self, name: &str) -> Vec<u8>;

    /// Puts an object there, or other content in its place, past everything that checks it.
    fn tamper(&self, name: &str, content: &[u8]);

    /// The objects whose name holds `text`.
    fn objects_with(&self, text: &str) -> Vec<String> {
        let mut names = self.objects();
        names.retain(|name| name.contains(text));
        names
    }
}
