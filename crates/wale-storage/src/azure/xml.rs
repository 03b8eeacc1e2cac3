//! The XML of Azure: what is read of its listings, and the list of blocks that is written.
//!
//! Elements that are not named here are skipped, as the protocol wants it. The outermost element must be the one that was
//! asked for.

use std::fmt::Write as _;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::http::failure::Failure;
use crate::http::markup::root;

/// An answer of status 200.
pub(super) trait AzureAnswer: DeserializeOwned {
    /// Its outermost element.
    const ROOT: &'static str;
}

impl AzureAnswer for BlobPage {
    const ROOT: &'static str = "EnumerationResults";
}

impl AzureAnswer for BlockPage {
    const ROOT: &'static str = "BlockList";
}

/// A page of a listing.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct BlobPage {
    pub(super) blobs: Blobs,
    pub(super) next_marker: Option<String>,
}

/// What stands on a page.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Blobs {
    pub(super) blob: Vec<ListedBlob>,
}

/// A blob in a listing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListedBlob {
    name: Name,
    pub(super) properties: Properties,
}

/// A name. What XML cannot hold is escaped, and says so.
#[derive(Debug, Deserialize)]
struct Name {
    #[serde(rename = "@Encoded", default)]
    is_escaped: bool,
    #[serde(rename = "$text", default)]
    text: String,
}

impl ListedBlob {
    /// Its name; none where that cannot be one of ours.
    pub(super) fn name(&self) -> Option<&str> {
        (!self.name.is_escaped).then_some(self.name.text.as_str())
    }

    /// Whether it is a folder, which accounts with a hierarchical namespace list as empty blobs.
    pub(super) fn is_folder(&self) -> bool {
        self.properties.resource_type.as_deref() == Some("directory")
    }
}

/// What is known of a blob.
#[derive(Debug, Deserialize)]
pub(super) struct Properties {
    /// As HTTP writes moments.
    #[serde(rename = "Last-Modified")]
    pub(super) last_modified: String,
    #[serde(rename = "Content-Length")]
    pub(super) content_length: u64,
    #[serde(rename = "ResourceType", default)]
    resource_type: Option<String>,
}

/// The blocks of a blob.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct BlockPage {
    pub(super) uncommitted_blocks: Blocks,
}

/// Blocks of one kind.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Blocks {
    pub(super) block: Vec<Block>,
}

/// A block.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Block {
    /// Its identifier, base64.
    pub(super) name: String,
}

/// Reads an answer of status 200.
pub(super) fn read<T: AzureAnswer>(body: &[u8]) -> Result<T, Failure> {
    let text = std::str::from_utf8(body)
        .map_err(|_| Failure::Nonsense("the answer is not UTF-8".to_owned()))?
        // Microsoft's begin with a mark of the byte order.
        .trim_start_matches('\u{feff}')
        .trim_start();
    if root(text).as_deref() != Some(T::ROOT) {
        return Err(Failure::Nonsense(format!("it is no {}", T::ROOT)));
    }
    quick_xml::de::from_str(text).map_err(|error| Failure::Nonsense(error.to_string()))
}

/// The body that makes a blob of blocks that were sent for it: at most 50,000 of some 60 bytes, 3 MiB. `Uncommitted`: none
/// of a blob that is there already.
pub(super) fn block_list<'a>(ids: impl Iterator<Item = &'a str>) -> Bytes {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
    for id in ids {
        // Base64 needs no escapes.
        let _ = write!(text, "<Uncommitted>{id}</Uncommitted>");
    }
    text.push_str("</BlockList>");
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing() {
        let page: BlobPage = read(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ServiceEndpoint=\"https://a\" \
             ContainerName=\"c\"><Prefix>p/</Prefix><MaxResults>2</MaxResults><Blobs>\
             <Blob><Name>p/a&amp;b</Name><Properties><Creation-Time>x</Creation-Time>\
             <Last-Modified>Sun, 29 Nov 2026 07:45:39 GMT</Last-Modified><Etag>0x1</Etag>\
             <Content-Length>5</Content-Length><BlobType>BlockBlob</BlobType></Properties><OrMetadata /></Blob>\
             <BlobPrefix><Name>q/</Name></BlobPrefix>\
             <Blob><Name> p/ c </Name><Properties><ResourceType>directory</ResourceType><Content-Length>0</Content-Length>\
             <Last-Modified>Sun, 29 Nov 2026 07:45:39 GMT</Last-Modified></Properties></Blob>\
             <Blob><Name Encoded=\"true\">p%EF%BF%BE</Name><Properties><Content-Length>0</Content-Length>\
             <Last-Modified>Sun, 29 Nov 2026 07:45:39 GMT</Last-Modified></Properties></Blob>\
             </Blobs><NextMarker>2!92!t=/+</NextMarker></EnumerationResults>"
                .as_bytes(),
        )
        .expect("reads");
        assert_eq!(page.next_marker.as_deref(), Some("2!92!t=/+"));
        let found: Vec<_> = page
            .blobs
            .blob
            .iter()
            .map(|blob| {
                let size = blob.properties.content_length;
                (blob.name(), size, blob.is_folder())
            })
            .collect();
        assert_eq!(
            found,
            [
                (Some("p/a&b"), 5, false),
                (Some(" p/ c "), 0, true),
                (None, 0, false)
            ]
        );
        let empty: BlobPage =
            read(b"<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>").expect("reads");
        assert!(empty.blobs.blob.is_empty());
        assert!(empty.next_marker.is_none_or(|marker| marker.is_empty()));
    }

    #[test]
    fn fault_24_a_page_of_somebody_else_is_no_answer() {
        for body in [
            "",
            "<",
            "text",
            "<html></html>",
            "<ListBucketResult/>",
            "<Error><Code>InternalError</Code></Error>",
            "<!DOCTYPE html><html></html>",
        ] {
            assert!(read::<BlobPage>(body.as_bytes()).is_err(), "{body}");
            assert!(read::<BlockPage>(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn lists_of_blocks() {
        let page: BlockPage = read(
            b"<BlockList><CommittedBlocks/><UncommittedBlocks><Block><Name>MDE=</Name><Size>5</Size></Block>\
              </UncommittedBlocks></BlockList>",
        )
        .expect("reads");
        assert_eq!(page.uncommitted_blocks.block[0].name, "MDE=");
        let text = block_list(["MDE=", "MDI="].into_iter());
        assert!(text.ends_with(
            b"<BlockList><Uncommitted>MDE=</Uncommitted><Uncommitted>MDI=</Uncommitted></BlockList>"
        ));
    }
}
