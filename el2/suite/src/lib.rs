//! Test suite for the hypervisor, which runs in QEMU machines with guests that check it and report
//! facts ([`doorbell_facts`]). The test targets list the cases.
#![forbid(unsafe_code)]

mod arceos;
mod bench;
mod board;
mod built;
mod checks;
mod costs;
mod debian;
mod devices;
mod direct;
mod direct_lpi;
mod dma;
mod files;
mod foreign;
mod hermit;
mod hostile;
pub mod interactive;
mod kvm_unit_tests;
mod latency;
mod leaks;
mod linux;
mod microbench;
mod one_vcpu;
mod osdemo;
mod output;
mod report;
mod traffic;
mod virt;

/// The parts of `el2-cpu` that do not depend on the machine. They are tested on the host.
#[cfg(test)]
#[expect(unreachable_pub, reason = "another package's file")]
#[path = "../../cpu/src/instruction.rs"]
mod instruction;
#[cfg(test)]
#[expect(unreachable_pub, reason = "another package's file")]
#[expect(clippy::cast_possible_truncation, reason = "its fields of a syndrome have up to 4 bits")]
#[path = "../../cpu/src/syndrome.rs"]
mod syndrome;
#[cfg(test)]
#[expect(unreachable_pub, reason = "another package's file")]
#[path = "../../cpu/src/vmid.rs"]
mod vmid;

use std::ffi::OsString;
use std::iter;
use std::path::PathBuf;

use doorbell_harness::suite::Case;

/// Other projects' kernels.
const KERNELS: [&foreign::Kernel; 4] =
    [&arceos::STOCK, &arceos::OURS, &hermit::KERNEL, &osdemo::KERNEL];

/// Lists the ordinary cases: Debian's kernels and firmware, ArceOS, Hermit, osdemo, and guests of
/// this project that check the hypervisor. Removes `--guests DIR` from the suite's arguments; the
/// kvm-unit-tests programs, Arm's `Bsa.efi` and other programs that files in that folder describe
/// are also cases. Also removes `--rfc FILE`, the message with the Direct LPI driver that was
/// posted for review.
pub fn cases(arguments: &mut Vec<OsString>) -> Vec<Case> {
    let guests = option_in(arguments, "--guests");
    let rfc = option_in(arguments, "--rfc");
    let foreign = KERNELS.into_iter().flat_map(|it| foreign::cases(it, it.machines));
    let mut all: Vec<_> = linux::cases().into_iter().chain(foreign).collect();
    all.extend(virt::cases());
    all.push(one_vcpu::case());
    let own = [
        bench::cases,
        microbench::cases,
        hostile::cases,
        checks::cases,
        leaks::cases,
        devices::cases,
        dma::cases,
        direct::cases,
    ];
    let mut direct_lpis = direct_lpi::cases(rfc.as_deref()).into_iter();
    for case in own.into_iter().flat_map(|cases| cases()) {
        // While this project's guests are built, Linux guests run.
        all.extend(iter::once(case).chain(direct_lpis.next()));
    }
    let all = all.into_iter().chain(direct_lpis);
    let all = all.chain(virt::compliance_cases(guests.as_deref()));
    let all = all.chain(virt::described_cases(guests.as_deref()));
    all.chain(kvm_unit_tests::cases(guests.as_deref())).collect()
}

/// Lists the cases that run Debian's kernels with more traffic and on more machines, the other
/// kernels on more machines, ArceOS with other drivers, and the test bench on each QEMU.
pub fn long_cases() -> Vec<Case> {
    let all: [fn() -> Vec<Case>; 4] =
        [linux::long_cases, direct_lpi::long_cases, virt::long_cases, bench::cases];
    let foreign = KERNELS.into_iter().flat_map(|it| foreign::cases(it, it.long_machines));
    all.iter().flat_map(|cases| cases()).chain(foreign).collect()
}

/// Removes an option with a path from the arguments of a suite, and returns the path.
fn option_in(arguments: &mut Vec<OsString>, name: &str) -> Option<PathBuf> {
    let at = arguments.iter().position(|argument| argument == name)?;
    let mut option = arguments.drain(at..arguments.len().min(at + 2));
    option.nth(1).map(PathBuf::from)
}
