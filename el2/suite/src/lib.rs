//! Test suite for the hypervisor: it runs in QEMU machines, with guests that check it and report
//! facts ([`doorbell_facts`]). The test targets list the cases.
#![forbid(unsafe_code)]

mod bench;
mod board;
mod built;
mod controller;
mod costs;
mod debian;
mod delay;
mod dma;
mod files;
mod hostile;
mod installer;
pub mod interactive;
mod kvm;
mod leaks;
mod linux;
mod machine;
mod microbench;
mod record;
mod report;
mod trace;
mod traffic;

use doorbell_harness::suite::Case;

/// Lists the ordinary cases: Debian's kernels, and guests of this project that check the
/// hypervisor.
pub fn cases() -> Vec<Case> {
    let all = [linux::cases, dma::cases, bench::cases, microbench::cases, record::cases];
    let others = [trace::cases, hostile::cases, leaks::cases, delay::cases];
    all.iter().chain(&others).flat_map(|cases| cases()).collect()
}

/// Lists the cases that run Debian's kernels with more traffic and on more machines, and the test
/// bench on each QEMU.
pub fn long_cases() -> Vec<Case> {
    linux::long_cases().into_iter().chain(bench::cases()).collect()
}

/// Lists the cases that run Debian's installer as a guest.
pub fn installer_cases() -> Vec<Case> {
    installer::cases()
}
