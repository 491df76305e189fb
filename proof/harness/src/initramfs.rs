//! Writes the archive that Linux unpacks as its first file system, in cpio's "new ASCII" format
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`).

/// A file of the archive.
#[derive(Debug)]
pub struct File {
    /// Path without the leading slash.
    pub path: &'static str,
    /// Type and content.
    pub content: Content,
}

/// Type and content of a file.
#[derive(Debug)]
pub enum Content {
    /// A folder.
    Folder,
    /// An executable file.
    Program(Vec<u8>),
    /// Another file.
    Data(Vec<u8>),
    /// A device node.
    #[expect(missing_docs, reason = "the numbers have their names in Linux")]
    CharacterDevice { major: u32, minor: u32 },
}

/// The name that marks the end of an archive.
const TRAILER: &str = "TRAILER!!!";

/// Packs `files` into an archive. Folders must precede their contents.
pub fn pack(files: &[File]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (number, file) in (1..).zip(files) {
        let (mode, data, device) = match &file.content {
            Content::Folder => (0o40_755, &[][..], (0, 0)),
            Content::Program(bytes) => (0o100_755, bytes.as_slice(), (0, 0)),
            Content::Data(bytes) => (0o100_644, bytes.as_slice(), (0, 0)),
            Content::CharacterDevice { major, minor } => (0o20_600, &[][..], (*major, *minor)),
        };
        append(&mut archive, file.path, [number, mode], data, device);
    }
    append(&mut archive, TRAILER, [0, 0], &[], (0, 0));
    archive
}

fn append(
    archive: &mut Vec<u8>,
    path: &str,
    [number, mode]: [u32; 2],
    data: &[u8],
    device: (u32, u32),
) {
    let length = |bytes: usize| u32::try_from(bytes).expect("all files are smaller than 4 GiB");
    let (owner, group, links, time, checksum) = (0, 0, 1, 0, 0);
    let on = (0, 0);
    let fields = [
        number,
        mode,
        owner,
        group,
        links,
        time,
        length(data.len()),
        on.0,
        on.1,
        device.0,
        device.1,
        length(path.len() + 1),
        checksum,
    ];
    archive.extend(b"070701");
    for field in fields {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(path.bytes().chain([0]));
    align(archive);
    archive.extend(data);
    align(archive);
}

/// Pads the archive. Names and data must start at multiples of four.
fn align(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}
