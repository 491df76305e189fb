//! Faults that are planted in the model. The comparison must find these faults, which shows that it
//! works.

use super::address_map::TRANSLATER;
use super::family::Family;
use super::fault::{Fault, first_word, with_opcode};
use super::model::Model;
use super::world::World;
use anyhow::Result;
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
    fault: Fault,
}

/// The opcode for commands that should have no effect: the model executes them as unknown commands.
const NOTHING: u8 = 0xff;

/// A fault that is visible in a world with one security state.
const fn mutant(name: &'static str, found_by: Option<Family>, fault: Fault) -> Mutant {
    let world = match found_by {
        Some(Family::Delivery) => World::Running,
        _ => World::Stopped,
    };
    Mutant { name, world, found_by, fault }
}

type Change = fn(&mut VgicConfig);

const fn built(name: &'static str, found_by: Option<Family>, change: Change) -> Mutant {
    mutant(name, found_by, Fault::Built(change))
}

const fn command(name: &'static str, is: u8, taken_for: u8) -> Mutant {
    mutant(name, Some(Family::Commands), Fault::Opcode { is, taken_for })
}

const fn line(name: &'static str, found_by: Family, change: fn(&str) -> Option<String>) -> Mutant {
    mutant(name, Some(found_by), Fault::Line(change))
}

const fn inputs(name: &'static str, change: fn(u32) -> u32) -> Mutant {
    mutant(name, Some(Family::Delivery), Fault::Inputs(change))
}

impl Mutant {
    const fn non_secure(self) -> Self {
        Self { world: World::NonSecure, ..self }
    }
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
    built("a queue that stalls", Some(Family::Commands), |config| {
        config.its[0].error_policy = ErrorPolicy::Stall;
    }),
    built("1 of 16 priorities", Some(Family::Delivery), |config| config.priority_bits = 4),
    line("priorities of LPIs are ignored", Family::Delivery, |line| {
        let (configuration, _) = line.strip_prefix("writeb ")?.split_once(' ')?;
        let in_table = configuration.strip_prefix("0x")?.strip_prefix("41000").is_some();
        in_table.then(|| format!("writeb {configuration} 0xa1"))
    }),
    line("INVALL does nothing", Family::Delivery, |line| with_opcode(line, 0x0d, NOTHING)),
    command("CLEAR does nothing", 0x04, NOTHING),
    command("INT does nothing", 0x03, NOTHING),
    command("MOVI does nothing", 0x01, NOTHING),
    command("MOVALL does nothing", 0x0e, NOTHING),
    command("DISCARD keeps the mapping", 0x0f, 0x04),
    command("DISCARD does nothing", 0x0f, NOTHING),
    command("MAPI does nothing", 0x0b, NOTHING),
    line("the translater does nothing", Family::Commands, |line| {
        line.starts_with(&format!("writel {TRANSLATER:#x} ")).then(|| "endianness".to_owned())
    }),
    line("reserved bits of commands are looked at", Family::Commands, |line| {
        let (at, word) = first_word(line)?;
        (word & 0xffff_ff00 != 0)
            .then(|| format!("writeq {at:#x} {:#x}", word & !0xff | u64::from(NOTHING)))
    }),
    line("a queue of one page is taken for one of two", Family::Commands, |line| {
        let (register, value) = line.rsplit_once(' ')?;
        let one_page = register == "writeq 0x8080080" && value.ends_with("1100000");
        one_page.then(|| format!("{register} {value}").replace("1100000", "1100001"))
    }),
    built("doorbells of message-based SPIs", Some(Family::Wired), |config| {
        config.message_based_spis = true;
    }),
    line("a line's level is inverted", Family::Wired, |line| {
        let (rest, level) =
            line.strip_prefix("set_irq_in").and_then(|rest| rest.rsplit_once(' '))?;
        Some(format!("set_irq_in{rest} {}", u8::from(level == "0")))
    }),
    line("the last SPIs cannot be enabled", Family::Wired, |line| {
        line.starts_with("writel 0x8000120 ").then(|| "endianness".to_owned())
    }),
    inputs("the first input is never asserted", |asserted| asserted & !1),
    inputs("the first input stays asserted once another is", |asserted| {
        asserted | u32::from(asserted > 1)
    }),
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
    line("priorities are not shifted", Family::Delivery, |line| {
        let (place, value) = line.strip_prefix("writel 0x8000")?.split_once(" 0x")?;
        let in_array =
            u16::from_str_radix(place, 16).is_ok_and(|place| (0x420..0x520).contains(&place));
        let value = u32::from_str_radix(value, 16).ok().filter(|_| in_array)?;
        Some(format!("writel 0x8000{place} {:#x}", value >> 1 & 0x7f7f_7f7f))
    })
    .non_secure(),
];

impl Mutant {
    /// Creates a model with this fault, which reports changes of the inputs that the protocol line
    /// `watch` selects.
    ///
    /// # Errors
    /// Returns [`vgic::ConfigError`] if the model rejects the configuration.
    pub fn model(&self, watch: &str) -> Result<Model> {
        Model::with(self.world, Some(self.fault), watch)
    }
}
