//! Sizes of the ITSes' device tables, from the kernel's log.

use super::root::Root;
use std::collections::BTreeMap;

/// The kernel's log. In a copy of another machine's files, this may be the output of `dmesg`.
const LOG: &str = "dev/kmsg";
/// Maximum length of the log.
const MAX_LOG: u64 = 64 << 20;

/// Returns the number of DeviceIDs that each ITS's device table has room for, by the ITS's address.
/// The result lacks an ITS if the log cannot be read, or if its start has been overwritten.
///
/// Linux allocates tables as whole pages, so an ITS may implement fewer DeviceIDs.
pub(super) fn device_tables(root: &Root) -> BTreeMap<u64, u64> {
    let log = root.long_text(LOG, MAX_LOG).unwrap_or_default();
    log.lines().filter_map(device_table).collect()
}

/// Parses a line of Linux's `drivers/irqchip/irq-gic-v3-its.c`, such as `ITS@0x8080000: allocated
/// 8192 Devices @431d0000 (indirect, esz 8, psz 64K, shr 1)`. Each entry of an indirect table
/// refers to a page of entries of `esz` bytes.
fn device_table(line: &str) -> Option<(u64, u64)> {
    let (_, line) = line.split_once("ITS@0x")?;
    let (base, line) = line.split_once(": allocated ")?;
    let (entries, line) = line.split_once(" Devices @")?;
    let (_, shape) = line.split_once(" (")?;
    let entries: u64 = entries.parse().ok()?;
    let (shape, sizes) = shape.split_once(", esz ")?;
    let room = match shape {
        "flat" => entries,
        "indirect" => {
            let (size, sizes) = sizes.split_once(", psz ")?;
            let page: u64 = sizes.split_once('K')?.0.parse().ok()?;
            let in_page = page.checked_mul(1024)?.checked_div(size.parse().ok()?)?;
            entries.checked_mul(1 << in_page.checked_ilog2()?)?
        }
        _ => return None,
    };
    Some((u64::from_str_radix(base, 16).ok()?, room))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_its_device_table_is_read_from_the_kernel_log() {
        let line = "6,0,0,-;ITS@0x0000000008080000: allocated 8192 Devices @431d0000 (indirect, \
            esz 8, psz 64K, shr 1)";
        assert_eq!(device_table(line), Some((0x808_0000, 1 << 26)));
        assert_eq!(device_table(&line.replace("esz 8", "esz 12")), Some((0x808_0000, 1 << 25)));
        assert_eq!(device_table(&line.replace("indirect", "flat")), Some((0x808_0000, 8192)));
    }

    #[test]
    fn malformed_log_lines_yield_no_device_table() {
        let line = "ITS@0x80: allocated 8 Devices @4 (indirect, esz 8, psz 64K, shr 1)";
        assert!(device_table(line).is_some());
        for (from, to) in [
            ("Devices", "Interrupt Collections"),
            ("0x80", "0xx"),
            ("allocated 8", "allocated 99999999999999999999"),
            ("allocated 8", "allocated 9999999999999999999"),
            ("indirect", "curved"),
            ("esz 8", "esz 0"),
            ("esz 8", "esz 80000"),
            ("64K", "99999999999999999K"),
            ("K, shr 1)", ""),
        ] {
            assert_eq!(device_table(&line.replace(from, to)), None, "{to}");
        }
    }
}
