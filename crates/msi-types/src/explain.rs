//! Explanations of why an interrupt does not arrive: the stages between device and handler, and the
//! first obstacle among them.
//!
//! Each driver, device model and message store knows some of the stages. It adds its observations
//! to an [`Explanation`], in the order of [`Stage`], until it finds the first [`Obstacle`]. The
//! machine keeps running in the meantime, so the observations may be from different times.

mod controller;
mod fact;
mod obstacle;
mod setup;
mod table;
mod table_register;
mod unexamined;
mod words;

pub use controller::ExplainInput;
pub use fact::{Fact, TargetState};
pub use obstacle::{Group, Obstacle};
pub use setup::SetupFault;
pub use table::{Code, Statement};
pub use table_register::TableRegister;
pub use unexamined::{StageState, Unexamined};

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
    /// Facts in the order of their stages, and those of one stage in the order of observation.
    facts: [Option<Fact>; MOST_FACTS],
    obstacle: Option<Obstacle>,
    /// Bit `n` is set if the fact with number `n` of [`Unexamined::ALL`] was not examined.
    unexamined: u16,
}

/// Maximum number of facts in an explanation. No explanation of these libraries has more.
const MOST_FACTS: usize = 14;

impl Explanation {
    /// Creates an explanation without facts or an obstacle.
    pub const fn new() -> Self {
        Self { facts: [None; MOST_FACTS], obstacle: None, unexamined: 0 }
    }

    /// Creates an explanation that ends with this obstacle.
    pub const fn stopped(obstacle: Obstacle) -> Self {
        Self::new().with_obstacle(obstacle)
    }

    /// Records a fact. A fact is ignored if an obstacle has already been recorded. Of more than 14
    /// facts, the last ones are dropped.
    // Don't inline this: it would make kernels larger, and an explanation need not be fast.
    #[inline(never)]
    pub fn with_fact(mut self, fact: Fact) -> Self {
        if self.obstacle.is_none() {
            self.insert(fact);
        }
        self
    }

    fn insert(&mut self, mut fact: Fact) {
        for place in &mut self.facts {
            let Some(known) = place else {
                *place = Some(fact);
                return;
            };
            // A controller and a CPU interface may both know that an interrupt is pending.
            if matches!((*known, fact), (Fact::Pending(a), Fact::Pending(b)) if a == b) {
                return;
            }
            if known.stage() > fact.stage() {
                core::mem::swap(known, &mut fact);
            }
        }
    }

    /// Records the obstacle that stops the interrupt. An obstacle is ignored if one has already
    /// been recorded.
    #[inline(never)]
    pub const fn with_obstacle(mut self, obstacle: Obstacle) -> Self {
        if self.obstacle.is_none() {
            self.obstacle = Some(obstacle);
        }
        self
    }

    /// Records a fact that was observed beside the obstacle, if there is one.
    pub fn with_observation(mut self, fact: Fact) -> Self {
        self.insert(fact);
        self
    }

    /// Replaces the obstacle with its cause.
    pub const fn caused_by(mut self, cause: Obstacle) -> Self {
        self.obstacle = Some(cause);
        self
    }

    /// Records that a part of a stage was not examined.
    #[inline(never)]
    pub const fn with_unexamined(mut self, part: Unexamined) -> Self {
        self.unexamined |= 1 << part as u16;
        self
    }

    /// Appends the facts and the obstacle that `next` returns. If an obstacle has already been
    /// recorded, `next` is not called.
    pub fn and_then(self, next: impl FnOnce() -> Self) -> Self {
        if self.obstacle.is_some() {
            return self;
        }
        let next = next();
        let mut joined = self;
        joined.adopt(&next, None);
        joined.obstacle = next.obstacle;
        joined
    }

    /// Adds the facts at stages before `end`, and what was not examined.
    #[inline(never)]
    fn adopt(&mut self, other: &Self, end: Option<Stage>) {
        for fact in other.facts() {
            if end.is_none_or(|end| fact.stage() < end) {
                self.insert(fact);
            }
        }
        self.unexamined |= other.unexamined;
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
        let mut merged = first;
        merged.adopt(&second, first.obstacle.map(Obstacle::stage));
        merged
    }

    /// Returns the first obstacle, or `None` if none was found.
    pub const fn obstacle(&self) -> Option<Obstacle> {
        self.obstacle
    }

    /// Returns the facts recorded before the obstacle, in the order of their stages.
    pub fn facts(&self) -> impl Iterator<Item = Fact> + Clone {
        self.facts.iter().flatten().copied()
    }
}

impl Explanation {
    /// Returns advice on how to remove the obstacle. If a fact shows how the obstacle came about,
    /// the advice is about that fact, for example about a command that the ITS refused.
    pub fn fix(&self) -> Option<&'static str> {
        let obstacle = self.obstacle?;
        Some(self.facts().find_map(|fact| fact.fix(obstacle)).unwrap_or_else(|| obstacle.fix()))
    }

    /// Returns the stable code of the obstacle.
    pub fn code(&self) -> Option<Code> {
        self.obstacle.map(Obstacle::code)
    }

    /// Returns what is known of a stage.
    pub fn state(&self, stage: Stage) -> StageState {
        let end = self.obstacle.map(Obstacle::stage);
        // A line needs no bus and no translation.
        let is_wired = self.facts().any(|fact| matches!(fact, Fact::Input(_)));
        if end == Some(stage) {
            StageState::Stopped
        } else if self.facts().any(|fact| fact.stage() == stage) {
            StageState::Passed
        } else if end.is_some_and(|end| end < stage) {
            StageState::NotReached
        } else if is_wired && matches!(stage, Stage::Bus | Stage::Translation) {
            StageState::NotApplicable
        } else {
            StageState::NotExamined
        }
    }

    /// Returns the parts of stages that were not examined, in the order of the stages. Whole stages
    /// are not among them: their [state](Self::state) is [`StageState::NotExamined`].
    pub fn unexamined(&self) -> impl Iterator<Item = Unexamined> + use<> + Clone {
        let parts = self.unexamined;
        Unexamined::ALL.into_iter().filter(move |part| parts >> *part as u16 & 1 != 0)
    }
}

/// Formats one line per fact, then either the obstacle and its fix, or a line that says that no
/// obstacle was found, and a list of what was not examined.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fact in self.facts() {
            let warning = if fact.is_warning() { "warning: " } else { "" };
            writeln!(f, "{}: {warning}{fact}", fact.stage())?;
        }
        if let Some((obstacle, fix)) = self.obstacle.zip(self.fix()) {
            return writeln!(f, "{}: {obstacle}\nfix: {fix}", obstacle.stage());
        }
        let never = self.facts().any(|fact| fact == Fact::Runs(0));
        let end = if never { ", but the handler has never run" } else { "" };
        writeln!(f, "no obstacle was found{end}")?;
        let mut separator = "not examined: ";
        for stage in Stage::ALL {
            if self.state(stage) == StageState::NotExamined {
                write!(f, "{separator}{stage}")?;
                separator = ", ";
            }
            for part in self.unexamined().filter(|part| part.stage() == stage) {
                write!(f, "{separator}{part}")?;
                separator = ", ";
            }
        }
        if separator == ", " { writeln!(f) } else { Ok(()) }
    }
}

/// Serializes the state and facts of each stage, and the obstacle with its stage, its fields, its
/// message and its mend.
#[cfg(feature = "serde")]
impl serde::Serialize for Explanation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut explanation = serializer.serialize_struct("Explanation", 6)?;
        explanation.serialize_field("stages", &Stage::ALL.map(|stage| StageOf(self, stage)))?;
        explanation.serialize_field("stage", &self.obstacle.map(Obstacle::stage))?;
        explanation.serialize_field("obstacle", &self.obstacle)?;
        explanation.serialize_field("message", &self.obstacle.map(Text))?;
        explanation.serialize_field("mend", &self.fix())?;
        explanation.serialize_field("code", &self.code().map(Text))?;
        explanation.end()
    }
}

#[cfg(feature = "serde")]
struct StageOf<'a>(&'a Explanation, Stage);

#[cfg(feature = "serde")]
impl serde::Serialize for StageOf<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let Self(explanation, of) = *self;
        let facts = explanation.facts().map(|fact| Some(fact).filter(|fact| fact.stage() == of));
        let parts = explanation.unexamined().map(|part| Some(part).filter(|p| p.stage() == of));
        let mut stage = serializer.serialize_struct("Stage", 4)?;
        stage.serialize_field("stage", &of)?;
        stage.serialize_field("state", &explanation.state(of))?;
        stage.serialize_field("facts", &List(facts))?;
        stage.serialize_field("unexamined", &List(parts))?;
        stage.end()
    }
}

/// The items of an iterator that are `Some`, as a sequence.
#[cfg(feature = "serde")]
struct List<I>(I);

#[cfg(feature = "serde")]
impl<T: serde::Serialize, I: Iterator<Item = Option<T>> + Clone> serde::Serialize for List<I> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.clone().flatten())
    }
}

#[cfg(feature = "serde")]
struct Text<T>(T);

#[cfg(feature = "serde")]
impl<T: fmt::Display> serde::Serialize for Text<T> {
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
    fn an_explanation_keeps_only_its_first_obstacle() {
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
    fn and_then_appends_facts_only_without_an_obstacle() {
        let interrupt = HwIrq::new(8192);
        let later = || Explanation::new().with_fact(Fact::Pending(interrupt));
        let joined = Explanation::new().with_fact(Fact::Message(MESSAGE)).and_then(later);
        assert!(joined.facts().eq([Fact::Message(MESSAGE), Fact::Pending(interrupt)]));
        let stopped = Explanation::new().with_obstacle(Obstacle::FunctionMasked);
        assert_eq!(stopped.and_then(later), stopped);
    }

    #[test]
    fn merging_keeps_the_earlier_of_two_obstacles() {
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
    fn merging_orders_facts_by_stage() {
        let first = Explanation::new().with_fact(Fact::Message(MESSAGE)).with_fact(Fact::Irq(1));
        let second = Explanation::new().with_fact(Fact::Enabled(0xa0)).with_fact(Fact::Irq(2));
        let merged = first.merge(second);
        let irqs = [Fact::Irq(1), Fact::Irq(2)];
        assert!(
            merged
                .facts()
                .eq([Fact::Message(MESSAGE), Fact::Enabled(0xa0)].into_iter().chain(irqs))
        );
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
            ": add the requester to msi-map (devicetree), or to the IORT's mappings to the ITS \
             group (ACPI)\n"
        ));
    }
}
