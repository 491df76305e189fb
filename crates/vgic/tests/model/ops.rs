//! Generates random steps taken by the guest, its devices and the VMM, on a few interrupts of each
//! kind.

use gic_arch::Affinity;
use proptest::prelude::*;

/// Affinities of CPUs in several clusters; one CPU has an Aff0 above 15.
pub(crate) const AFFINITIES: [Affinity; 3] =
    [Affinity::new(0, 0, 0, 0), Affinity::new(0, 0, 0, 17), Affinity::new(2, 0, 3, 1)];
pub(crate) const PRIVATE: [u32; 8] = [0, 1, 15, 16, 27, 31, 1056, 1087];
pub(crate) const SHARED: [u32; 6] = [32, 33, 64, 95, 4096, 4127];
/// Interrupts that belong to the Secure side in the Non-secure view.
pub(crate) const SECURE: [u32; 3] = [15, 31, 95];
/// Direct LPIs.
pub(crate) const LPIS: [u32; 3] = [8193, 8300, 9000];
/// INTIDs that are special, reserved or not implemented.
const NONE: [u32; 4] = [1023, 1055, 96, 8192];

/// A register with a field per interrupt.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field {
    Enable,
    Disable,
    Pend,
    Unpend,
    Activate,
    Deactivate,
    Group,
    Priority,
    Trigger,
}

/// One step. CPUs and interrupts are given as indices modulo the number of existing CPUs or
/// interrupts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Line {
        cpu: usize,
        interrupt: usize,
        high: bool,
    },
    Message {
        interrupt: usize,
        set: bool,
    },
    /// A write to `GICR_SETLPIR` or `GICR_CLRLPIR`.
    Lpi {
        cpu: usize,
        lpi: usize,
        set: bool,
    },
    /// The guest changes an LPI's configuration and invalidates the cached copy. Each LPI has a
    /// different priority, because the architecture does not order LPIs of equal priority.
    Configure {
        lpi: usize,
        priority: u8,
        enabled: bool,
    },
    Field {
        cpu: usize,
        interrupt: usize,
        field: Field,
        value: u8,
        wide: bool,
    },
    Route {
        interrupt: usize,
        target: usize,
        wide: bool,
    },
    Control {
        groups: [bool; 2],
    },
    Waker {
        cpu: usize,
        asleep: bool,
    },
    Mask {
        cpu: usize,
        value: u8,
    },
    BinaryPoint {
        cpu: usize,
        group: usize,
        value: u8,
    },
    Modes {
        cpu: usize,
        cbpr: bool,
        eoimode: bool,
    },
    GroupEnable {
        cpu: usize,
        group: usize,
        on: bool,
    },
    Sgi {
        from: usize,
        group: usize,
        target: usize,
        interrupt: usize,
    },
    Acknowledge {
        cpu: usize,
        group: usize,
    },
    EndLast {
        cpu: usize,
        group: usize,
    },
    End {
        cpu: usize,
        group: usize,
        interrupt: usize,
    },
    Deactivate {
        cpu: usize,
        interrupt: usize,
    },
    /// If `cpu` acknowledged an SPI last, routes it to `target`, then pulses its line.
    RefireWhileActive {
        cpu: usize,
        target: usize,
    },
    /// The machine is saved, and its state is restored into a new machine that replaces it.
    Migrate,
}

pub(crate) fn ops() -> impl Strategy<Value = Op> {
    let cpu = || 0..AFFINITIES.len();
    let interrupt = || 0..PRIVATE.len() + SHARED.len() + NONE.len();
    let group = || 0..2usize;
    let flag = any::<bool>;
    prop_oneof![
        6 => (cpu(), interrupt(), flag())
            .prop_map(|(cpu, interrupt, high)| Op::Line { cpu, interrupt, high }),
        3 => (interrupt(), flag()).prop_map(|(interrupt, set)| Op::Message { interrupt, set }),
        4 => (cpu(), 0..LPIS.len(), flag()).prop_map(|(cpu, lpi, set)| Op::Lpi { cpu, lpi, set }),
        2 => (0..LPIS.len(), 0..5u8, flag())
            .prop_map(|(lpi, priority, enabled)| Op::Configure { lpi, priority, enabled }),
        8 => (cpu(), interrupt(), field(), priority(), flag())
            .prop_map(|(cpu, interrupt, field, value, wide)| {
                Op::Field { cpu, interrupt, field, value, wide }
            }),
        2 => (0..SHARED.len(), 0..=AFFINITIES.len(), flag())
            .prop_map(|(interrupt, target, wide)| Op::Route { interrupt, target, wide }),
        1 => any::<[bool; 2]>().prop_map(|groups| Op::Control { groups }),
        1 => (cpu(), flag()).prop_map(|(cpu, asleep)| Op::Waker { cpu, asleep }),
        1 => (cpu(), priority()).prop_map(|(cpu, value)| Op::Mask { cpu, value }),
        2 => (cpu(), group(), 0..8u8)
            .prop_map(|(cpu, group, value)| Op::BinaryPoint { cpu, group, value }),
        1 => (cpu(), flag(), flag())
            .prop_map(|(cpu, cbpr, eoimode)| Op::Modes { cpu, cbpr, eoimode }),
        1 => (cpu(), group(), flag())
            .prop_map(|(cpu, group, on)| Op::GroupEnable { cpu, group, on }),
        3 => (cpu(), group(), 0..=AFFINITIES.len(), 0..3usize)
            .prop_map(|(from, group, target, interrupt)| {
                Op::Sgi { from, group, target, interrupt }
            }),
        6 => (cpu(), group()).prop_map(|(cpu, group)| Op::Acknowledge { cpu, group }),
        5 => (cpu(), group()).prop_map(|(cpu, group)| Op::EndLast { cpu, group }),
        1 => (cpu(), group(), interrupt())
            .prop_map(|(cpu, group, interrupt)| Op::End { cpu, group, interrupt }),
        2 => (cpu(), interrupt()).prop_map(|(cpu, interrupt)| Op::Deactivate { cpu, interrupt }),
        8 => (cpu(), cpu()).prop_map(|(cpu, target)| Op::RefireWhileActive { cpu, target }),
        1 => Just(Op::Migrate),
    ]
}

/// Generates a priority. Half of the priorities come from a small set in which many have the same
/// group priority.
fn priority() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), (0..4u8, 0..8u8).prop_map(|(high, low)| high << 6 | low << 3)]
}

fn field() -> impl Strategy<Value = Field> {
    use Field::{Activate, Deactivate, Disable, Enable, Group, Pend, Priority, Trigger, Unpend};
    prop_oneof![
        4 => Just(Enable), 1 => Just(Disable), 3 => Just(Pend), 1 => Just(Unpend),
        1 => Just(Activate), 2 => Just(Deactivate), 2 => Just(Group), 3 => Just(Priority),
        2 => Just(Trigger),
    ]
}

/// Returns the interrupt with this index.
pub(crate) fn interrupt(index: usize) -> u32 {
    let all = PRIVATE.iter().chain(&SHARED).chain(&NONE);
    *all.clone().nth(index).unwrap()
}
