//! Faults that are planted in the model. The comparison must find these faults, which shows that it
//! works, in each family of cases and each world.

use super::access::Access;
use super::address_map::{
    CBASER, CONFIGURATION, GICD, IPRIORITYR, ITS, QUEUE, QUEUE_PAGES, TRANSLATER,
};
use super::family::Family;
use super::peer::Asserted;
use super::world::World;
use gic_arch::IntId;
use vgic::its::{ErrorPolicy, TableLevels};
use vgic::{SecurityView, VgicConfig};

/// A fault that can be planted in the model.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// Name.
    pub name: &'static str,
    /// The world in which the fault is visible.
    pub world: World,
    /// The family whose cases find the fault, or `None` if the fault is visible in the registers'
    /// reset values.
    pub found_by: Option<Family>,
    pub(super) fault: Fault,
}

/// A fault in the model.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// The model has a different configuration.
    Built(fn(&mut VgicConfig)),
    /// The model executes commands that have one opcode as if they had another.
    Opcode { is: u8, taken_for: u8 },
    /// The model carries out a different access than the requested one.
    Access(fn(Access) -> Access),
    /// The model reports wrong interrupt inputs as asserted.
    Inputs(fn(u32) -> u32),
}

impl Fault {
    /// Returns the access that the model carries out instead of `access`.
    pub(super) fn misunderstand(self, access: Access) -> Access {
        match (self, access) {
            (Self::Access(change), _) => change(access),
            (Self::Opcode { is, taken_for }, Access::Store { at, width, value })
                if is_first_word(at) && value & 0xff == u64::from(is) =>
            {
                Access::Store { at, width, value: value & !0xff | u64::from(taken_for) }
            }
            _ => access,
        }
    }

    /// Returns the inputs that the model reports as asserted.
    pub(super) fn misreport(self, asserted: Asserted) -> Asserted {
        match self {
            Self::Inputs(change) => Asserted(change(asserted.0)),
            _ => asserted,
        }
    }
}

/// Returns `true` for the address of the first word of a command.
fn is_first_word(at: u64) -> bool {
    (QUEUE..QUEUE + 0x1000 * QUEUE_PAGES).contains(&at) && at.is_multiple_of(0x20)
}

/// The opcode for commands that should have no effect: the model executes them as unknown commands.
const NOTHING: u8 = 0xff;
/// An access without an effect.
const NO_ACCESS: Access = Access::Fill { at: QUEUE, bytes: 0, byte: 0 };

impl Mutant {
    /// A fault that is visible in a world with one security state.
    const fn new(name: &'static str, found_by: Option<Family>, fault: Fault) -> Self {
        let world = match found_by {
            Some(Family::Delivery) => World::Running,
            _ => World::Stopped,
        };
        Self { name, world, found_by, fault }
    }

    const fn non_secure(self) -> Self {
        Self { world: World::NonSecure, ..self }
    }
}

const fn built(
    name: &'static str,
    found_by: Option<Family>,
    change: fn(&mut VgicConfig),
) -> Mutant {
    Mutant::new(name, found_by, Fault::Built(change))
}

const fn command(name: &'static str, is: u8, taken_for: u8) -> Mutant {
    Mutant::new(name, Some(Family::Commands), Fault::Opcode { is, taken_for })
}

/// All planted faults.
pub const MUTANTS: &[Mutant] = &[
    built("fewer SPIs", None, |config| config.spis = 192),
    built("fewer EventID bits", None, |config| config.its[0].event_id_bits = 15),
    built("a collection in the ITS", None, |config| config.its[0].held_collections = 1),
    built("LPIs that cannot be disabled", None, |config| config.can_clear_enable_lpis = false),
    built("fewer priority bits", Some(Family::Wired), |config| config.priority_bits = 5),
    built("no second levels of collections", Some(Family::Commands), |config| {
        config.its[0].collection_table = Some(TableLevels::Flat);
    }),
    built("1 of 16 priorities", Some(Family::Delivery), |config| config.priority_bits = 4),
    built("doorbells of message-based SPIs", Some(Family::Wired), |config| {
        config.message_based_spis = true;
    }),
    Mutant::new(
        "a line's level is inverted",
        Some(Family::Wired),
        Fault::Access(|access| match access {
            Access::Line { input, level } => Access::Line { input, level: 1 - level },
            other => other,
        }),
    ),
    Mutant::new(
        "the last SPIs cannot be enabled",
        Some(Family::Wired),
        Fault::Access(|access| match access {
            Access::Store { at, .. } if at == GICD + 0x120 => NO_ACCESS,
            other => other,
        }),
    ),
    Mutant::new(
        "the command queue's size is ignored",
        Some(Family::LpiRegisters),
        Fault::Access(|access| match access {
            Access::Store { at, width, value } if at == ITS + CBASER => {
                Access::Store { at, width, value: value & !0xff }
            }
            other => other,
        }),
    ),
    built("a queue that stalls", Some(Family::Commands), |config| {
        config.its[0].error_policy = ErrorPolicy::Stall;
    }),
    command("MOVI does nothing", 0x01, NOTHING),
    command("INT does nothing", 0x03, NOTHING),
    command("CLEAR does nothing", 0x04, NOTHING),
    command("MAPI does nothing", 0x0b, NOTHING),
    command("MOVALL does nothing", 0x0e, NOTHING),
    command("DISCARD does nothing", 0x0f, NOTHING),
    command("DISCARD keeps the mapping", 0x0f, 0x04),
    Mutant::new(
        "the translater does nothing",
        Some(Family::Commands),
        Fault::Access(|access| match access {
            Access::Store { at: TRANSLATER, .. } => NO_ACCESS,
            other => other,
        }),
    ),
    Mutant::new(
        "reserved bits of commands are looked at",
        Some(Family::Commands),
        Fault::Access(|access| match access {
            Access::Store { at, width, value } if is_first_word(at) && value & 0xffff_ff00 != 0 => {
                Access::Store { at, width, value: value & !0xff | u64::from(NOTHING) }
            }
            other => other,
        }),
    ),
    Mutant::new(
        "priorities of LPIs are ignored",
        Some(Family::Delivery),
        Fault::Access(|access| match access {
            Access::Store { at, width, .. }
                if (CONFIGURATION..CONFIGURATION + 0x1000).contains(&at) =>
            {
                Access::Store { at, width, value: 0xa1 }
            }
            other => other,
        }),
    ),
    Mutant::new(
        "INVALL does nothing",
        Some(Family::Delivery),
        Fault::Opcode { is: 0x0d, taken_for: NOTHING },
    ),
    Mutant::new(
        "the first input is never asserted",
        Some(Family::Delivery),
        Fault::Inputs(|asserted| asserted & !1),
    ),
    Mutant::new(
        "the first input stays asserted once another is",
        Some(Family::Delivery),
        Fault::Inputs(|asserted| asserted | u32::from(asserted > 1)),
    ),
    built("one security state", None, |config| {
        config.security = SecurityView::Single;
        config.secure_interrupts.clear();
    })
    .non_secure(),
    built("a Secure SPI is visible", Some(Family::Wired), |config| {
        config.secure_interrupts.retain(|intid| intid.get() != 42);
    })
    .non_secure(),
    built("a Secure SGI is visible", Some(Family::Wired), |config| {
        config.secure_interrupts.retain(|intid| intid.get() != 15);
    })
    .non_secure(),
    built("a Non-secure PPI is invisible", Some(Family::Wired), |config| {
        config.secure_interrupts.push(IntId::new(27));
    })
    .non_secure(),
    Mutant::new(
        "priorities are not shifted",
        Some(Family::Delivery),
        Fault::Access(|access| match access {
            Access::Store { at, width, value }
                if (GICD + IPRIORITYR + 0x20..GICD + IPRIORITYR + 0x120).contains(&at) =>
            {
                Access::Store { at, width, value: value >> 1 & 0x7f7f_7f7f_7f7f_7f7f }
            }
            other => other,
        }),
    )
    .non_secure(),
];
