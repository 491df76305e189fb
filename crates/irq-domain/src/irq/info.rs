//! Interrupt statistics, readable descriptions, and explanations of why a handler does not run.

use super::dispatch::IrqRef;
use crate::irq::descriptor::{Descriptor, Source};
use crate::irq::handler::Flow;
use crate::name::{Irq, Name};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering;
use doorbell_fallible::try_collect;
use msi_types::explain::{Explanation, Fact, Obstacle};
use msi_types::{Cpu, HwIrq};

/// An interrupt's effective affinity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EffectiveAffinity {
    /// The interrupt is delivered to this CPU.
    Cpu(Cpu),
    /// The interrupt is private: each CPU has its own instance.
    PerCpu,
}

/// Information on one interrupt, like a line in Linux's `/proc/interrupts`.
#[derive(PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct IrqInfo {
    /// IRQ number of the interrupt.
    pub irq: Irq,
    /// Number with which the root controller acknowledges the interrupt.
    pub hwirq: HwIrq,
    /// Name of the current handler, or of the last one if no handler is installed. `None` if the
    /// interrupt never had a handler. A shared line lists the names of all its handlers, separated
    /// by commas.
    pub name: Option<Name>,
    /// For a message-signaled interrupt: name of the device's domain, and slot in its message
    /// store.
    pub slot: Option<(Name, u16)>,
    /// The interrupt's flow.
    pub flow: Flow,
    /// The interrupt's effective affinity.
    pub affinity: EffectiveAffinity,
    /// `true` if the interrupt is enabled. For a private interrupt, `true` if any CPU has enabled
    /// it.
    pub enabled: bool,
    /// Number of handler runs, indexed by CPU.
    pub counts: Vec<u64>,
    /// Number of redeliveries, i.e. of arrivals that were resent because the handler was disabled
    /// or was running on another CPU.
    pub redelivered: u64,
    /// Number of runs that returned [`IrqReturn::None`](crate::IrqReturn::None).
    pub unhandled: u64,
}

impl IrqInfo {
    /// Collects information on an interrupt.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// The kernel's heap is exhausted.
    pub(crate) fn of(interrupt: IrqRef<'_>) -> Result<Self, TryReserveError> {
        let descriptor = interrupt.descriptor;
        Ok(Self {
            irq: descriptor.irq,
            hwirq: descriptor.hwirq,
            name: descriptor.name(interrupt.runtime.host())?,
            slot: match &descriptor.source {
                Source::Device(source) => {
                    let (name, _, slot) = source.slot();
                    Some((name.clone(), slot))
                }
                Source::Wired(_) | Source::PerCpu(_) => None,
            },
            flow: descriptor.flow,
            affinity: affinity(descriptor),
            enabled: interrupt.is_enabled(),
            counts: try_collect(descriptor.counts.per_cpu())?,
            redelivered: descriptor.redelivered.load(Ordering::SeqCst),
            unhandled: descriptor.unhandled.total(),
        })
    }
}

/// Writes the levels of an interrupt's hierarchy, from the device to the root.
///
/// Context: task; may sleep.
pub(crate) fn describe(interrupt: IrqRef<'_>, out: &mut dyn fmt::Write) -> fmt::Result {
    let (descriptor, host) = (interrupt.descriptor, interrupt.runtime.host());
    write!(out, "irq {}: ", descriptor.irq)?;
    if let Some(line) = descriptor.shared_line() {
        line.write_names(host, out)?;
    } else {
        let name = descriptor.name.lock(host).clone();
        out.write_str(name.as_deref().unwrap_or("(no handler)"))?;
    }
    write!(out, ", {}", descriptor.flow)?;
    if let EffectiveAffinity::Cpu(cpu) = affinity(descriptor) {
        write!(out, ", cpu {cpu}")?;
    }
    let runs: u64 = descriptor.counts.per_cpu().sum();
    let state = if interrupt.is_enabled() { "enabled" } else { "disabled" };
    let redelivered = descriptor.redelivered.load(Ordering::SeqCst);
    write!(out, ", {state}, {runs} runs, {redelivered} redelivered")?;
    let unhandled = descriptor.unhandled.total();
    if unhandled != 0 {
        write!(out, ", {unhandled} unhandled")?;
    }
    writeln!(out)?;
    let out: &mut dyn fmt::Write = &mut Indented { out, in_line: false };
    match &descriptor.source {
        Source::Device(source) => source.describe(host, descriptor.hwirq, out),
        Source::Wired(_) => writeln!(out, "root: wired vector {}", descriptor.hwirq),
        Source::PerCpu(_) => writeln!(out, "root: private vector {}", descriptor.hwirq),
    }
}

fn affinity(descriptor: &Descriptor) -> EffectiveAffinity {
    match descriptor.flow {
        Flow::PerCpu => EffectiveAffinity::PerCpu,
        Flow::Edge | Flow::Level => EffectiveAffinity::Cpu(descriptor.target()),
    }
}

/// A writer that indents each line by two spaces.
struct Indented<'a> {
    out: &'a mut dyn fmt::Write,
    /// `true` once a line's first character has been written.
    in_line: bool,
}

impl fmt::Write for Indented<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive('\n') {
            if !self.in_line {
                self.out.write_str("  ")?;
            }
            self.out.write_str(part)?;
            self.in_line = !part.ends_with('\n');
        }
        Ok(())
    }
}

/// Explains why an interrupt's handler does not run.
///
/// Context: task; may sleep.
pub(crate) fn explain(interrupt: IrqRef<'_>) -> Explanation {
    let (descriptor, host) = (interrupt.descriptor, interrupt.runtime.host());
    let disabled = disabled(interrupt);
    let source = descriptor.source.explain(host, descriptor.hwirq);
    // The controller may already have said so.
    let is_known = source.obstacles().any(|it| matches!(it, Obstacle::Offline { .. }));
    let offline = target_offline(interrupt).filter(|_| disabled.is_none() && !is_known);
    let trigger = other_trigger(descriptor, &source);
    let found =
        source.with_obstacles(&[offline, trigger]).with_fact(Fact::Irq(descriptor.irq.get()));
    match disabled {
        // The core masks an interrupt that it or its driver disables.
        Some(reason) => found.caused_by(reason, |obstacle| match obstacle {
            Obstacle::VectorMasked { .. } => true,
            Obstacle::Disabled { interrupt } => interrupt == descriptor.hwirq,
            _ => false,
        }),
        None => found.with_fact(Fact::Runs(descriptor.counts.per_cpu().sum())),
    }
}

/// Returns the obstacle that the controller has another trigger than was requested. A controller
/// that says nothing of an interrupt's state does not say that it waits for edges. The line of a
/// chained controller has a trigger of its own.
fn other_trigger(descriptor: &Descriptor, source: &Explanation) -> Option<Obstacle> {
    let interrupt = descriptor.hwirq;
    let is_examined = |fact| matches!(fact, Fact::Pending(_) | Fact::NotPending(_));
    let is_level = source.facts().any(|fact| fact == Fact::LevelSensitive);
    match descriptor.flow {
        _ if descriptor.line().is_some() => None,
        Flow::Edge if is_level => Some(Obstacle::LevelSensitive { interrupt }),
        Flow::Level if !is_level && source.facts().any(is_examined) => {
            Some(Obstacle::EdgeTriggered { interrupt })
        }
        _ => None,
    }
}

/// Returns the obstacle, if any, that keeps the handler from running when the interrupt arrives.
/// For a private interrupt, checks the handler of the calling CPU.
fn disabled(interrupt: IrqRef<'_>) -> Option<Obstacle> {
    let (descriptor, host) = (interrupt.descriptor, interrupt.runtime.host());
    if descriptor.flow != Flow::PerCpu {
        return descriptor.control.lock(host).obstacle();
    }
    let mut obstacle = None;
    interrupt.with_own_cell(|cell| {
        obstacle = (!cell.is_enabled()).then_some(Obstacle::DisabledByDriver);
    });
    obstacle
}

fn target_offline(interrupt: IrqRef<'_>) -> Option<Obstacle> {
    let Descriptor { source, .. } = interrupt.descriptor;
    let cpu = interrupt.descriptor.target();
    let has_target = !matches!(source, Source::PerCpu(_));
    (has_target && !interrupt.runtime.is_online(cpu)).then_some(Obstacle::Offline { cpu })
}
