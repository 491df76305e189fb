//! Generates random steps and random hardware for the ITS tests.

use crate::fake::Hardware;
use gic_arch::gits::PageSize;
use msi_types::{Initially, Pending};
use proptest::prelude::*;
use proptest::sample::Index;

pub(crate) const CPUS: u32 = 4;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Attach {
        device: u32,
        max: u32,
    },
    Detach(Index),
    /// Releases the attachment with all its blocks.
    Release(Index),
    Map {
        attachment: Index,
        count: u16,
        cpu: u32,
        initially: Initially,
    },
    Unmap(Index),
    Move {
        event: Index,
        cpu: u32,
    },
    Mask(Index),
    Unmask(Index),
    Pend(Index, Pending),
    Send(Index),
    Take(u32),
    CpuOff {
        cpu: u32,
        heir: u32,
    },
    CpuOn(u32),
    Suspend,
    /// Makes the platform's allocations fail from now on (`false`) or succeed again (`true`).
    Memory(bool),
    /// Makes the ITS hang (`true`) or continue (`false`).
    Stuck(bool),
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let initially = prop_oneof![Just(Initially::Unmasked), Just(Initially::Masked)];
    let pending = prop_oneof![Just(Pending::Set), Just(Pending::Clear)];
    prop_oneof![
        3 => (prop_oneof![0_u32..3, Just(0x8000), Just(0xffff)], 1_u32..12)
            .prop_map(|(device, max)| Step::Attach { device, max }),
        1 => any::<Index>().prop_map(Step::Detach),
        2 => any::<Index>().prop_map(Step::Release),
        4 => (any::<Index>(), 1_u16..6, 0..CPUS, initially).prop_map(
            |(attachment, count, cpu, initially)| Step::Map { attachment, count, cpu, initially },
        ),
        2 => any::<Index>().prop_map(Step::Unmap),
        4 => (any::<Index>(), 0..CPUS).prop_map(|(event, cpu)| Step::Move { event, cpu }),
        1 => any::<Index>().prop_map(Step::Mask),
        1 => any::<Index>().prop_map(Step::Unmask),
        1 => (any::<Index>(), pending).prop_map(|(event, pending)| Step::Pend(event, pending)),
        5 => any::<Index>().prop_map(Step::Send),
        2 => (0..CPUS).prop_map(Step::Take),
        1 => (0..CPUS, 0..CPUS).prop_map(|(cpu, heir)| Step::CpuOff { cpu, heir }),
        1 => (0..CPUS).prop_map(Step::CpuOn),
        1 => Just(Step::Suspend),
        1 => any::<bool>().prop_map(Step::Memory),
        1 => any::<bool>().prop_map(Step::Stuck),
    ]
}

pub(crate) fn hardware() -> impl Strategy<Value = Hardware> {
    let speed = prop_oneof![Just(None), Just(Some(1)), Just(Some(5))];
    let page =
        prop_oneof![Just(PageSize::Size4K), Just(PageSize::Size16K), Just(PageSize::Size64K)];
    let hcc = prop_oneof![Just(0_u8), Just(2), Just(4)];
    (speed, page, hcc, any::<[bool; 4]>()).prop_map(
        |(pace, page, hcc, [indirect, looks_into_caches, stalls, pta])| {
            let typer = Hardware::default().typer.with_hcc(hcc).with_pta(pta);
            Hardware {
                typer,
                pages: vec![page],
                indirect,
                looks_into_caches,
                stalls,
                pace,
                ..Hardware::default()
            }
        },
    )
}
