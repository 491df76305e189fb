//! Devicetree names that a browser would interpret as code if they weren't escaped.

use anyhow::{Result, ensure};

/// Names in a devicetree, each with a replacement of the same length that a browser must not
/// interpret.
pub(crate) const NAMES: [(&str, &str); 3] = [
    ("interrupt-controller@8000000", "<img src=x onerror=alert(1)>"),
    ("Doorbell Harbour", "<script>1</scrip"),
    ("pcie@20000000", "\"'><b id=n1>&"),
];

/// Returns the blob with each of [`NAMES`] changed wherever it occurs.
///
/// # Errors
/// Fails if one of the names does not occur in the blob.
pub(crate) fn renamed(blob: &[u8]) -> Result<Vec<u8>> {
    let mut blob = blob.to_vec();
    for (from, to) in NAMES {
        ensure!(from.len() == to.len(), "{to} is not as long as {from}");
        let places: Vec<_> =
            (0..blob.len()).filter(|&at| blob[at..].starts_with(from.as_bytes())).collect();
        ensure!(!places.is_empty(), "the devicetree does not contain {from}");
        for at in places {
            blob[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
    }
    Ok(blob)
}
