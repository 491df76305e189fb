//! Machines of the model by the kinds of their vCPUs.

use super::{Ends, Program};
use crate::guest::{Half, Kicks};
use vgic::Vcpu;

/// How a machine of the model carries out a program. A guest cannot observe the difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Steps are carried out as they are.
    Plain,
    /// After each step, the machine is saved and restored.
    Restored,
    /// After each step, another machine continues from the saved state.
    Moved,
    /// Each access of the guest does as little work as possible.
    InPieces,
    /// No vCPU sleeps, and each is in its guest during a step of another one. Messages of every
    /// other event try to reach the guest without an exit.
    Awake,
}

impl Way {
    /// All ways.
    pub const ALL: [Self; 5] =
        [Self::Plain, Self::Restored, Self::Moved, Self::InPieces, Self::Awake];
}

/// A kind of vCPU.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// A description.
    pub name: &'static str,
    /// Adds the CPU interface to a vCPU.
    pub interface: fn(Vcpu, &Kicks) -> Half,
    /// The order in which a guest must end its interrupts.
    pub ends: Ends,
}

impl Kind {
    /// The CPU interface is in software.
    pub const SOFTWARE: Self = Self::new("software", |vcpu, _| Half::Software(vcpu), Ends::Any);

    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::SOFTWARE,
        Self::new("16 list registers", |vcpu, kicks| listed(vcpu, kicks, 16), Ends::Own),
        Self::new(
            "16 list registers, with an exit after each access",
            |vcpu, kicks| listed(vcpu, kicks, 16).exiting(),
            Ends::Own,
        ),
        Self::new(
            "16 list registers, except for vCPU 0",
            |vcpu, kicks| match vcpu.cpu().index() {
                0 => Half::Software(vcpu),
                _ => listed(vcpu, kicks, 16),
            },
            Ends::Own,
        ),
        Self::new("1 list register", |vcpu, kicks| listed(vcpu, kicks, 1), Ends::Nested),
        Self::new("3 list registers", |vcpu, kicks| listed(vcpu, kicks, 3), Ends::Nested),
        Self::new(
            "4 list registers, with an exit after each access",
            |vcpu, kicks| listed(vcpu, kicks, 4).exiting(),
            Ends::Nested,
        ),
    ];

    const fn new(name: &'static str, interface: fn(Vcpu, &Kicks) -> Half, ends: Ends) -> Self {
        Self { name, interface, ends }
    }

    /// Returns all machines: each kind in each way.
    pub fn machines() -> impl Iterator<Item = (Self, Way)> + Clone {
        Self::ALL.into_iter().flat_map(|kind| Way::ALL.map(|way| (kind, way)))
    }

    /// Returns `true` if a machine of this kind can carry out programs with wired interrupts in
    /// this way. A saved state does not record in which order a guest must end its interrupts once
    /// it has activated others.
    pub fn has_wired(self, way: Way) -> bool {
        self.ends < Ends::Nested || !matches!(way, Way::Restored | Way::Moved)
    }

    /// Returns `true` if a machine of this kind can carry out the program in this way. List
    /// registers don't support two security states.
    pub fn suits(self, way: Way, program: &Program) -> bool {
        program.shape.wired.is_none_or(|wired| {
            let is_possible = self.ends == Ends::Any || !wired.is_non_secure;
            self.has_wired(way) && wired.ends >= self.ends && is_possible
        })
    }
}

fn listed(vcpu: Vcpu, kicks: &Kicks, registers: u8) -> Half {
    let kicked = kicks.flag(vcpu.cpu().index());
    Half::lists(vcpu, registers, kicked)
}
