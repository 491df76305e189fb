//! Explanations of why an interrupt does not arrive: the stages between device and handler, and the
//! obstacles at them.
//!
//! Each driver, device model and message store knows some of the stages. It adds its [facts](Fact)
//! and [obstacles](Obstacle) to an [`Explanation`], which orders them by [`Stage`]. An interrupt
//! without an obstacle that is not pending is [idle](Explanation::is_idle). The machine keeps
//! running in the meantime, so the observations may be from different times.

mod fact;
mod obstacle;
mod setup;
mod table;
mod table_register;
mod unexamined;
mod words;

pub use fact::{Fact, TargetState};
pub use obstacle::{Group, Obstacle};
pub use setup::SetupFault;
pub use table::{Code, Statement};
pub use table_register::TableRegister;
pub use unexamined::{StageState, Unexamined};

use crate::{DeviceId, Line, MsiMessage};
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

/// The stages that an interrupt passes, and the obstacles that stop it.
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
///      fix: map the DeviceID with MAPD, or correct the DeviceID that firmware gives the device\n\
///      not examined: bus, doorbell\n"
/// );
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use]
pub struct Explanation {
    /// Facts in the order of their stages, and those of one stage in the order of observation.
    facts: [Option<Fact>; MOST_FACTS],
    /// Obstacles in the same order.
    obstacles: [Option<Obstacle>; MOST_OBSTACLES],
    /// Bit `n` is set if the fact with number `n` of [`Unexamined::ALL`] was not examined.
    unexamined: u16,
}

/// Maximum number of facts in an explanation. No explanation of these libraries has more.
const MOST_FACTS: usize = 14;
/// Maximum number of obstacles in an explanation.
const MOST_OBSTACLES: usize = 8;

impl Explanation {
    /// Creates an explanation without facts or obstacles.
    pub const fn new() -> Self {
        Self { facts: [None; MOST_FACTS], obstacles: [None; MOST_OBSTACLES], unexamined: 0 }
    }

    /// Creates an explanation with this obstacle.
    pub const fn stopped(obstacle: Obstacle) -> Self {
        let mut stopped = Self::new();
        stopped.obstacles[0] = Some(obstacle);
        stopped
    }

    /// Records a fact. Of more than 14 facts, those of the last stages are dropped.
    // Don't inline this: it would make kernels larger, and an explanation need not be fast.
    #[inline(never)]
    pub fn note(&mut self, fact: Fact) {
        // A controller and a CPU interface may both know that an interrupt is pending.
        let is_known =
            |known| matches!((known, fact), (Fact::Pending(a), Fact::Pending(b)) if a == b);
        if !self.facts().any(is_known) {
            insert(&mut self.facts, fact, Fact::stage);
        }
    }

    /// Records an obstacle that stops the interrupt. Of more than eight obstacles, those of the
    /// last stages are dropped.
    #[inline(never)]
    pub fn hinder(&mut self, obstacle: Obstacle) {
        insert(&mut self.obstacles, obstacle, Obstacle::stage);
    }

    /// Records a fact, like [`note`](Self::note).
    #[inline(never)]
    pub fn with_fact(mut self, fact: Fact) -> Self {
        self.note(fact);
        self
    }

    /// Records an obstacle, like [`hinder`](Self::hinder).
    #[inline(never)]
    pub fn with_obstacle(mut self, obstacle: Obstacle) -> Self {
        self.hinder(obstacle);
        self
    }

    /// Records the facts that are there.
    #[inline(never)]
    pub fn with_facts(mut self, facts: &[Option<Fact>]) -> Self {
        facts.iter().flatten().for_each(|fact| self.note(*fact));
        self
    }

    /// Records the obstacles that are there.
    #[inline(never)]
    pub fn with_obstacles(mut self, obstacles: &[Option<Obstacle>]) -> Self {
        obstacles.iter().flatten().for_each(|obstacle| self.hinder(*obstacle));
        self
    }

    /// Replaces the obstacles that are effects of this cause.
    pub fn caused_by(mut self, cause: Obstacle, is_effect: impl Fn(Obstacle) -> bool) -> Self {
        let all = core::mem::take(&mut self.obstacles);
        self.with_obstacles(&all.map(|one| one.filter(|one| !is_effect(*one)))).with_obstacle(cause)
    }

    /// Records that a part of a stage was not examined.
    #[inline(never)]
    pub const fn with_unexamined(mut self, part: Unexamined) -> Self {
        self.unexamined |= 1 << part as u16;
        self
    }

    /// Adds what another explanation of the same interrupt has found.
    #[inline(never)]
    pub fn merge(self, other: Self) -> Self {
        let mut merged = self.with_facts(&other.facts).with_obstacles(&other.obstacles);
        merged.unexamined |= other.unexamined;
        merged
    }

    /// Returns the first obstacle, or `None` if none was found.
    pub const fn obstacle(&self) -> Option<Obstacle> {
        self.obstacles[0]
    }

    /// Returns the obstacles in the order of their stages.
    pub fn obstacles(&self) -> impl Iterator<Item = Obstacle> + Clone {
        self.obstacles.iter().flatten().copied()
    }

    /// Returns the facts in the order of their stages.
    pub fn facts(&self) -> impl Iterator<Item = Fact> + Clone {
        self.facts.iter().flatten().copied()
    }

    /// Returns `true` if nothing stops the interrupt, but it is not pending: no message, edge or
    /// level has arrived since it was last acknowledged.
    pub fn is_idle(&self) -> bool {
        let has = |is: fn(Fact) -> bool| self.facts().any(is);
        let is_pending = has(|fact| matches!(fact, Fact::Pending(_)));
        self.obstacle().is_none() && !is_pending && has(|it| matches!(it, Fact::NotPending(_)))
    }
}

/// Inserts an item after those of its stage and of earlier ones.
fn insert<T: Copy>(list: &mut [Option<T>], mut item: T, stage: fn(T) -> Stage) {
    let mut is_placed = false;
    for place in list {
        let Some(known) = place else {
            *place = Some(item);
            return;
        };
        is_placed = is_placed || stage(*known) > stage(item);
        if is_placed {
            core::mem::swap(known, &mut item);
        }
    }
}

impl Explanation {
    /// Returns advice on how to remove an obstacle. If a fact shows how the obstacle came about,
    /// the advice is about that fact, for example about a command that the ITS refused.
    pub fn fix(&self, obstacle: Obstacle) -> &'static str {
        self.facts().find_map(|fact| fact.fix(obstacle)).unwrap_or_else(|| obstacle.fix())
    }

    /// Returns what is known of a stage.
    pub fn state(&self, stage: Stage) -> StageState {
        // A line needs no bus and no translation.
        let is_wired = self.facts().any(|fact| matches!(fact, Fact::Input(_)));
        if self.obstacles().any(|obstacle| obstacle.stage() == stage) {
            StageState::Stopped
        } else if self.facts().any(|fact| fact.stage() == stage) {
            StageState::Passed
        } else if self.obstacle().is_some_and(|first| first.stage() < stage) {
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

/// Formats the facts up to the stage of the first obstacle, the obstacles in the order of their
/// stages, each with its fix, and all warnings; or says that no obstacle was found. The last line
/// lists what was not examined.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.obstacle().map(Obstacle::stage);
        for stage in Stage::ALL {
            for fact in self.facts().filter(|fact| fact.stage() == stage) {
                match fact.advice() {
                    None if first.is_some_and(|first| first < stage) => {}
                    Some("") => writeln!(f, "{stage}: warning: {fact}")?,
                    Some(fix) => writeln!(f, "{stage}: warning: {fact}\nfix: {fix}")?,
                    None => writeln!(f, "{stage}: {fact}")?,
                }
            }
            for obstacle in self.obstacles().filter(|obstacle| obstacle.stage() == stage) {
                writeln!(f, "{stage}: {obstacle}\nfix: {}", self.fix(obstacle))?;
            }
        }
        if self.obstacle().is_none() {
            let never = self.facts().any(|fact| fact == Fact::Runs(0));
            let end = match (self.is_idle(), never) {
                (false, false) => "",
                (false, true) => ", but the handler has never run",
                (true, false) => ": the interrupt is idle",
                (true, true) => ": the interrupt is idle, and its handler has never run",
            };
            writeln!(f, "no obstacle was found{end}")?;
        }
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

/// Serializes the state and facts of each stage, whether the interrupt is idle, and the obstacles:
/// the first one with its stage, its fields, its message and its mend, and the others likewise.
#[cfg(feature = "serde")]
impl serde::Serialize for Explanation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut explanation = serializer.serialize_struct("Explanation", 8)?;
        let first = self.obstacle();
        explanation.serialize_field("stages", &Stage::ALL.map(|stage| StageOf(self, stage)))?;
        explanation.serialize_field("idle", &self.is_idle())?;
        explanation.serialize_field("stage", &first.map(Obstacle::stage))?;
        explanation.serialize_field("obstacle", &first)?;
        explanation.serialize_field("message", &first.map(Text))?;
        explanation.serialize_field("mend", &first.map(|first| self.fix(first)))?;
        explanation.serialize_field("code", &first.map(Obstacle::code).map(Text))?;
        let others = self.obstacles().skip(1).map(|other| Some(Other(self, other)));
        explanation.serialize_field("others", &List(others))?;
        explanation.end()
    }
}

/// An obstacle after the first one.
#[cfg(feature = "serde")]
struct Other<'a>(&'a Explanation, Obstacle);

#[cfg(feature = "serde")]
impl serde::Serialize for Other<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let Self(explanation, obstacle) = *self;
        let mut other = serializer.serialize_struct("Other", 5)?;
        other.serialize_field("stage", &obstacle.stage())?;
        other.serialize_field("obstacle", &obstacle)?;
        other.serialize_field("message", &Text(obstacle))?;
        other.serialize_field("mend", explanation.fix(obstacle))?;
        other.serialize_field("code", &Text(obstacle.code()))?;
        other.end()
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

/// An interrupt controller that explains why an interrupt does not reach a CPU from the
/// controller's inputs. Message stores and routes append this explanation to their own.
///
/// Implementations must not send the message or change the line.
pub trait ExplainInput: Send + Sync {
    /// Explains what stops a message from this sender, starting at the message's doorbell. `sender`
    /// is `None` if the message has no DeviceID.
    fn explain_message(&self, sender: Option<DeviceId>, message: MsiMessage) -> Explanation;

    /// Explains what stops the interrupt of this line.
    fn explain_line(&self, line: Line) -> Explanation;
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::{Cpu, DeviceId, HwIrq, MsiMessage};
    use std::string::ToString;

    const MESSAGE: MsiMessage = MsiMessage { address: 0x0809_0040, data: 1 };

    #[test]
    fn obstacles_are_listed_in_the_order_of_stages() {
        let asleep = Obstacle::Asleep { cpu: Cpu::new(1) };
        let explanation = Explanation::new()
            .with_obstacle(Obstacle::NotRequested)
            .with_obstacle(asleep)
            .with_fact(Fact::Message(MESSAGE));
        assert!(explanation.obstacles().eq([asleep, Obstacle::NotRequested]));
        let states = [Stage::Endpoint, Stage::Bus, Stage::Target, Stage::Interface, Stage::Handler];
        assert_eq!(
            states.map(|stage| explanation.state(stage)),
            [
                StageState::Passed,
                StageState::NotExamined,
                StageState::Stopped,
                StageState::NotReached,
                StageState::Stopped,
            ]
        );
    }

    #[test]
    fn a_ninth_obstacle_drops_the_one_of_the_last_stage() {
        let asleep = |cpu| Obstacle::Asleep { cpu: Cpu::new(cpu) };
        let full = (0..8).map(asleep).fold(Explanation::new(), Explanation::with_obstacle);
        assert_eq!(full.with_obstacle(Obstacle::NotRequested), full);
        let explanation = full.with_obstacle(Obstacle::FunctionMasked);
        let expected = [Obstacle::FunctionMasked].into_iter().chain((0..7).map(asleep));
        assert!(explanation.obstacles().eq(expected));
    }

    #[test]
    fn merging_keeps_the_obstacles_and_facts_of_both() {
        let device = Explanation::new()
            .with_fact(Fact::Message(MESSAGE))
            .with_fact(Fact::Irq(1))
            .with_obstacle(Obstacle::DisabledAsSpurious);
        let disabled = Obstacle::Disabled { interrupt: HwIrq::new(8192) };
        let controller = Explanation::stopped(disabled).with_fact(Fact::Doorbell(MESSAGE.address));
        for merged in [device.merge(controller), controller.merge(device)] {
            assert!(merged.obstacles().eq([disabled, Obstacle::DisabledAsSpurious]));
            let doorbell = Fact::Doorbell(MESSAGE.address);
            assert!(merged.facts().eq([Fact::Message(MESSAGE), doorbell, Fact::Irq(1)]));
        }
    }

    #[test]
    fn a_cause_replaces_its_effects_alone() {
        let interrupt = HwIrq::new(40);
        let explanation = Explanation::stopped(Obstacle::Disabled { interrupt })
            .with_obstacle(Obstacle::BusMasterDisabled)
            .caused_by(Obstacle::DisabledByDriver, |it| matches!(it, Obstacle::Disabled { .. }));
        let expected = [Obstacle::BusMasterDisabled, Obstacle::DisabledByDriver];
        assert!(explanation.obstacles().eq(expected));
    }

    #[test]
    fn an_interrupt_that_is_not_pending_is_idle_without_an_obstacle() {
        let idle = Explanation::new().with_fact(Fact::NotPending(HwIrq::new(40)));
        assert!(idle.is_idle() && !Explanation::new().is_idle());
        assert!(!idle.with_obstacle(Obstacle::NotRequested).is_idle());
        let text = idle.to_string();
        assert!(text.contains("\nno obstacle was found: the interrupt is idle\n"), "{text}");
        assert!(!text.contains("fix: "), "{text}");
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
    fn a_fix_follows_its_obstacle() {
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
        let advice = ": add the requester to msi-map (devicetree), or to the IORT's mappings to the \
             ITS group (ACPI)\n";
        assert!(text.contains(advice), "{text}");
    }
}
