//! Explanations of why an interrupt does not arrive: the stages between device and handler, and the
//! first obstacle among them.
//!
//! Each driver, device model and message store knows some of the stages. It adds its observations
//! to an [`Explanation`], in the order of [`Stage`], until it finds the first [`Obstacle`]. The
//! machine keeps running in the meantime, so the observations may be from different times.

mod controller;
mod fact;
mod fix;
mod obstacle;
mod setup;
mod table_register;
mod words;

pub use controller::ExplainInput;
pub use fact::{Fact, TargetState};
pub use obstacle::{Group, Obstacle};
pub use setup::SetupFault;
pub use table_register::TableRegister;

use core::fmt;

/// A stage on an interrupt's path from its device to its handler. The variants are declared in the
/// order in which an interrupt passes them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Stage {
    /// The device's own state: its message, its masks, its line.
    Endpoint,
    /// The device's access to the bus, including an IOMMU's mapping of the doorbell.
    Bus,
    /// The address or input at which a controller receives the interrupt.
    Doorbell,
    /// The mapping from a DeviceID and EventID, or a GSI, to an INTID and a target.
    Translation,
    /// The interrupt's configuration: tables, group, trigger, enable bit and priority.
    Configuration,
    /// The interrupt's pending state.
    Pending,
    /// The CPU to which the interrupt is routed.
    Target,
    /// The interface of the target CPU: groups, priority mask, running priority, exception mask.
    Interface,
    /// The kernel's table that maps INTIDs to interrupt descriptors.
    Dispatch,
    /// The handler.
    Handler,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Self; 10] = [
        Self::Endpoint,
        Self::Bus,
        Self::Doorbell,
        Self::Translation,
        Self::Configuration,
        Self::Pending,
        Self::Target,
        Self::Interface,
        Self::Dispatch,
        Self::Handler,
    ];

    /// Returns the stage's name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Bus => "bus",
            Self::Doorbell => "doorbell",
            Self::Translation => "translation",
            Self::Configuration => "configuration",
            Self::Pending => "pending",
            Self::Target => "target",
            Self::Interface => "interface",
            Self::Dispatch => "dispatch",
            Self::Handler => "handler",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The stages that an interrupt passes, and the first obstacle that stops it.
///
/// ```
/// use msi_types::explain::{Explanation, Fact, Obstacle};
/// use msi_types::{DeviceId, MsiMessage};
///
/// let message = MsiMessage { address: 0x0809_0040, data: 3 };
/// let explanation = Explanation::new()
///     .with_fact(Fact::Message(message))
///     .with_obstacle(Obstacle::UnmappedDevice { device: DeviceId::new(0x10), mapped: 1 });
/// assert_eq!(
///     explanation.to_string(),
///     "endpoint: sends 0x3 to 0x8090040\n\
///      translation: the ITS has no mapping of DeviceID 0x10; 1 other DeviceID is mapped\n\
///      fix: map the DeviceID with MAPD, or correct the DeviceID that firmware gives the device\n"
/// );
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use]
pub struct Explanation {
    /// At most one fact per stage, in the order of the stages.
    facts: [Option<Fact>; Stage::ALL.len()],
    obstacle: Option<Obstacle>,
}

impl Explanation {
    /// Creates an explanation without facts or an obstacle.
    pub const fn new() -> Self {
        Self { facts: [None; Stage::ALL.len()], obstacle: None }
    }

    /// Records a fact, which replaces an earlier fact at the same stage. A fact is ignored if an
    /// obstacle has already been recorded.
    pub const fn with_fact(mut self, fact: Fact) -> Self {
        if self.obstacle.is_none() {
            self.facts[fact.stage() as usize] = Some(fact);
        }
        self
    }

    /// Records the obstacle that stops the interrupt. An obstacle is ignored if one has already
    /// been recorded.
    pub const fn with_obstacle(mut self, obstacle: Obstacle) -> Self {
        if self.obstacle.is_none() {
            self.obstacle = Some(obstacle);
        }
        self
    }

    /// Appends the facts and the obstacle that `next` returns. If an obstacle has already been
    /// recorded, `next` is not called.
    pub fn and_then(self, next: impl FnOnce() -> Self) -> Self {
        if self.obstacle.is_some() {
            return self;
        }
        let next = next();
        let joined = next.facts().fold(self, Self::with_fact);
        match next.obstacle {
            Some(obstacle) => joined.with_obstacle(obstacle),
            None => joined,
        }
    }

    /// Merges two independent explanations of the same interrupt. Keeps the obstacle at the earlier
    /// stage, or that of `self` if both are at the same stage. At this stage and later ones, keeps
    /// only facts from the explanation that found the obstacle.
    pub fn merge(self, other: Self) -> Self {
        let stage = |explanation: &Self| explanation.obstacle.map(Obstacle::stage);
        let other_first = match (stage(&self), stage(&other)) {
            (Some(mine), Some(theirs)) => theirs < mine,
            (mine, theirs) => mine.is_none() && theirs.is_some(),
        };
        let (first, second) = if other_first { (other, self) } else { (self, other) };
        let passed = |fact: &Fact| first.obstacle.is_none_or(|end| fact.stage() < end.stage());
        let mut merged = first;
        for fact in second.facts().filter(passed) {
            merged.facts[fact.stage() as usize].get_or_insert(fact);
        }
        merged
    }

    /// Returns the first obstacle, or `None` if none was found.
    pub const fn obstacle(&self) -> Option<Obstacle> {
        self.obstacle
    }

    /// Returns the facts recorded before the obstacle, in the order of their stages.
    pub fn facts(&self) -> impl Iterator<Item = Fact> {
        self.facts.into_iter().flatten()
    }
}

/// Formats one line per fact, then either the obstacle and its fix, or a line that says that no
/// obstacle was found.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fact in self.facts() {
            writeln!(f, "{}: {fact}", fact.stage())?;
        }
        match self.obstacle {
            Some(obstacle) => {
                writeln!(f, "{}: {obstacle}\nfix: {}", obstacle.stage(), obstacle.fix())
            }
            None => writeln!(f, "no obstacle was found"),
        }
    }
}

/// Serializes the facts with their stages, and the obstacle with its stage, its fields, its message
/// and its fix.
#[cfg(feature = "serde")]
impl serde::Serialize for Explanation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut explanation = serializer.serialize_struct("Explanation", 5)?;
        explanation.serialize_field("facts", &Facts(self))?;
        explanation.serialize_field("stage", &self.obstacle.map(Obstacle::stage))?;
        explanation.serialize_field("obstacle", &self.obstacle)?;
        explanation.serialize_field("message", &self.obstacle.map(Sentence))?;
        explanation.serialize_field("fix", &self.obstacle.map(Obstacle::fix))?;
        explanation.end()
    }
}

#[cfg(feature = "serde")]
struct Facts<'a>(&'a Explanation);

#[cfg(feature = "serde")]
impl serde::Serialize for Facts<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.facts().map(|fact| (fact.stage(), fact)))
    }
}

#[cfg(feature = "serde")]
struct Sentence(Obstacle);

#[cfg(feature = "serde")]
impl serde::Serialize for Sentence {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::{Cpu, DeviceId, HwIrq, MsiMessage};
    use std::string::ToString;

    const MESSAGE: MsiMessage = MsiMessage { address: 0x0809_0040, data: 1 };

    #[test]
    fn only_the_first_obstacle_counts() {
        let first = Obstacle::Asleep { cpu: Cpu::new(1) };
        let explanation = Explanation::new()
            .with_fact(Fact::Message(MESSAGE))
            .with_obstacle(first)
            .with_obstacle(Obstacle::NotRequested)
            .with_fact(Fact::Runs(1));
        assert_eq!(explanation.obstacle(), Some(first));
        assert!(explanation.facts().eq([Fact::Message(MESSAGE)]));
    }

    #[test]
    fn stages_are_joined_in_order() {
        let interrupt = HwIrq::new(8192);
        let later = || Explanation::new().with_fact(Fact::Pending(interrupt));
        let joined = Explanation::new().with_fact(Fact::Message(MESSAGE)).and_then(later);
        assert!(joined.facts().eq([Fact::Message(MESSAGE), Fact::Pending(interrupt)]));
        let stopped = Explanation::new().with_obstacle(Obstacle::FunctionMasked);
        assert_eq!(stopped.and_then(later), stopped);
    }

    #[test]
    fn the_earlier_of_two_obstacles_counts() {
        let interrupt = HwIrq::new(8192);
        let device = Explanation::new()
            .with_fact(Fact::Message(MESSAGE))
            .with_fact(Fact::Irq(1))
            .with_obstacle(Obstacle::DisabledAsSpurious);
        let controller = Explanation::new()
            .with_fact(Fact::Enabled(0xa0))
            .with_obstacle(Obstacle::NotPending { interrupt });
        for merged in [device.merge(controller), controller.merge(device)] {
            assert_eq!(merged.obstacle(), controller.obstacle());
            assert!(merged.facts().eq([Fact::Message(MESSAGE), Fact::Enabled(0xa0)]));
        }
        let other = Explanation::new().with_obstacle(Obstacle::NotRequested);
        assert_eq!(device.merge(other).obstacle(), Some(Obstacle::DisabledAsSpurious));
        assert_eq!(other.merge(device).obstacle(), Some(Obstacle::NotRequested));
    }

    #[test]
    fn facts_are_merged_by_stage() {
        let first = Explanation::new().with_fact(Fact::Message(MESSAGE)).with_fact(Fact::Irq(1));
        let second = Explanation::new().with_fact(Fact::Enabled(0xa0)).with_fact(Fact::Irq(2));
        let merged = first.merge(second);
        assert!(merged.facts().eq([Fact::Message(MESSAGE), Fact::Enabled(0xa0), Fact::Irq(1)]));
        assert_eq!(merged.obstacle(), None);
    }

    #[test]
    fn an_explanation_ends_with_the_fix() {
        let obstacle = Obstacle::UnmappedDevice { device: DeviceId::new(0x10), mapped: 0 };
        let text = Explanation::new().with_obstacle(obstacle).to_string();
        let (stage, fix) = text.split_once('\n').unwrap();
        assert_eq!(
            stage,
            "translation: the ITS has no mapping of DeviceID 0x10; no DeviceID is mapped"
        );
        assert!(fix.starts_with("fix: map the DeviceID with MAPD"), "{fix}");
    }

    #[test]
    fn a_setup_fault_has_its_own_stage_and_advice() {
        let requester = crate::RequesterId::new(0x10);
        let fault = SetupFault::OutsideMap { requester };
        let text = Explanation::new().with_obstacle(Obstacle::Setup(fault)).to_string();
        assert!(
            text.starts_with("doorbell: firmware's MSI map has no entry for requester 0x0010\n")
        );
        assert!(text.ends_with(
            ": add the requester to msi-map, or to the IORT's mappings to the ITS group\n"
        ));
    }
}
