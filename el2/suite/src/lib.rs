//! Test suite for the hypervisor, which runs in QEMU machines with guests that check it and report
//! facts ([`doorbell_facts`]). The test targets list the cases.
#![forbid(unsafe_code)]

mod arceos;
mod bench;
mod board;
mod built;
mod checks;
mod controller;
mod costs;
mod debian;
mod delay;
mod devices;
mod direct;
mod direct_lpi;
mod dma;
mod files;
mod foreign;
mod hermit;
mod hostile;
mod imx8mp;
pub mod interactive;
mod kvm;
mod kvm_unit_tests;
mod latency;
mod leaks;
mod linux;
mod machine;
mod microbench;
mod one_vcpu;
mod osdemo;
mod outcome;
mod record;
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

use doorbell_harness::suite::Case;

/// Lists the ordinary cases: Debian's kernels and firmware, ArceOS, Hermit, osdemo, and guests of
/// this project that check the hypervisor. Removes `--guests DIR` from the suite's arguments; the
/// kvm-unit-tests programs, Arm's `Bsa.efi` and other programs that files in that folder describe
/// are also cases. Also removes `--rfc
/// FILE`, the message with the Direct LPI driver that was posted for review.
pub fn cases(arguments: &mut Vec<OsString>) -> Vec<Case> {
    let foreign = kvm_unit_tests::folder_in(arguments);
    let rfc = direct_lpi::file_in(arguments);
    let kernels =
        [linux::cases, arceos::cases, hermit::cases, osdemo::cases, imx8mp::cases, virt::cases];
    let own = [bench::cases, microbench::cases, record::cases, checks::cases];
    let hostile =
        [hostile::cases, leaks::cases, delay::cases, devices::cases, dma::cases, direct::cases];
    let mut direct_lpis = direct_lpi::cases(rfc.as_deref()).into_iter();
    let mut all: Vec<_> = kernels.into_iter().flat_map(|cases| cases()).collect();
    all.push(one_vcpu::case());
    for case in own.into_iter().chain(hostile).flat_map(|cases| cases()) {
        // While this project's guests are built, Linux guests run.
        all.extend(iter::once(case).chain(direct_lpis.next()));
    }
    let all = all.into_iter().chain(direct_lpis);
    let all = all.chain(virt::compliance_cases(foreign.as_deref()));
    let all = all.chain(virt::described_cases(foreign.as_deref()));
    all.chain(kvm_unit_tests::cases(foreign.as_deref())).collect()
}

/// Lists the cases that run Debian's kernels with more traffic and on more machines, the other
/// kernels on more machines, ArceOS with other drivers, and the test bench on each QEMU.
pub fn long_cases() -> Vec<Case> {
    let all: [fn() -> Vec<Case>; 8] = [
        linux::long_cases,
        direct_lpi::long_cases,
        arceos::long_cases,
        hermit::long_cases,
        osdemo::long_cases,
        imx8mp::long_cases,
        virt::long_cases,
        bench::cases,
    ];
    all.iter().flat_map(|cases| cases()).collect()
}
