//! Facts about the files that a command reads.

use std::path::Path;

/// Maximum file size. Kernels have a lower limit, which is 2 MiB in the arm64 boot protocol.
pub(crate) const MAX_BYTES: u64 = 16 << 20;

/// Returns `true` if the path means standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}
