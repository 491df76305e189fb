//! Prints the measurements as the tables in `docs/measurements.md`: only ratios, plus the CPU.

use crate::print::Output;
use crate::wording::three_digits;
use doorbell_bench::{Case, Measurements};
use std::io::{self, Write};

/// Pairs of comparable cases, a peer's and ours.
const PEERS: [(&str, &str); 11] = [
    ("peer-kvm-signal-msi", "inject-1"),
    ("peer-kvm-route-update-16", "route-update-16"),
    ("peer-kvm-route-update-4096", "route-update-4096"),
    ("peer-qemu-int-command", "inject-1-fresh"),
    ("peer-mutex-btreemap", "inject-ack-depth-1"),
    ("peer-arm-vgic-inject-1", "inject-1"),
    ("peer-arm-vgic-inject-1-fresh", "inject-1-fresh"),
    ("peer-arm-vgic-inject-1k-random", "inject-64k-random"),
    ("peer-arm-vgic-inject-57k-random", "inject-64k-random"),
    ("peer-arm-vgic-inject-ack-depth-1", "inject-ack-depth-1"),
    ("peer-arm-vgic-inject-ack-depth-16k", "inject-ack-depth-57k"),
];

/// Prints the tables.
pub(super) fn print(out: &mut Output, measured: &Measurements) -> io::Result<()> {
    let floor = measured.floor_ns;
    writeln!(out, "Measured on {}, whose `fetch_or` takes {floor:.2} ns.\n", cpu())?;
    writeln!(out, "| case | times | floor or other case |\n|---|---|---|")?;
    let ours = |case: &&Case| !case.name.starts_with("peer-") && is_ours(&case.of);
    for case in measured.cases.iter().filter(ours) {
        writeln!(out, "| `{}` | {} | `{}` |", case.name, three_digits(case.ratio), case.of)?;
    }
    writeln!(out, "\n| peer | times | our case |\n|---|---|---|")?;
    let least =
        |name: &str| measured.cases.iter().find(|case| case.name == name).map(|case| case.min_ns);
    for (peer, ours) in PEERS {
        if let (Some(theirs), Some(our_time)) = (least(peer), least(ours)) {
            writeln!(out, "| `{peer}` | {} | `{ours}` |", three_digits(theirs / our_time))?;
        }
    }
    Ok(())
}

/// Returns `true` unless the case is compared with the bare floor or with a peer.
fn is_ours(of: &str) -> bool {
    of != "fetch_or" && !of.starts_with("peer-")
}

/// Returns this machine's processor name.
fn cpu() -> String {
    let described = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = described.lines().find_map(|line| line.strip_prefix("model name"));
    let name = model.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim().to_owned());
    name.unwrap_or_else(|| format!("an {} CPU", std::env::consts::ARCH))
}
