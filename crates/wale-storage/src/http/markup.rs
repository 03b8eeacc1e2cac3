//! The outermost element of an answer in XML.
//!
//! Elements that nobody names are skipped, as protocols want it. So nearly every page from anywhere would pass for an empty
//! listing. The outermost element must be the one that was asked for.

use quick_xml::Reader;
use quick_xml::events::Event;

/// The name of the outermost element, without its namespace.
pub(crate) fn root(text: &str) -> Option<String> {
    let mut reader = Reader::from_str(text);
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) | Event::Empty(start) => {
                return String::from_utf8(start.local_name().as_ref().to_vec()).ok();
            }
            Event::Decl(_) | Event::Comment(_) | Event::DocType(_) | Event::PI(_) => {}
            Event::Text(text) if text.iter().all(u8::is_ascii_whitespace) => {}
            _ => return None,
        }
    }
}
