//! Facts about the files that a command reads.

use std::path::Path;

pub(crate) use doorbell_inspection::MAX_BYTES;

/// Returns `true` if the path means standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}
