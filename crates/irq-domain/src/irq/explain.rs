//! Explanations of interrupts: the stages of the device and the controllers, then those of the
//! interrupt core.

use crate::irq::descriptor::{Descriptor, Source};
use crate::irq::flow::Flow;
use crate::irq::manage::IrqRef;
use msi_types::explain::{Explanation, Fact, Obstacle};

/// Explains why an interrupt's handler does not run.
///
/// Context: task; may sleep.
pub(crate) fn explain(interrupt: IrqRef<'_>) -> Explanation {
    let (descriptor, host) = (interrupt.descriptor, interrupt.runtime.host());
    let disabled = disabled(interrupt);
    let source = masked_because(&descriptor.source.explain(host, descriptor.hwirq), disabled);
    let core = match (target_offline(interrupt), disabled) {
        (Some(offline), None) => Explanation::stopped(offline),
        _ => Explanation::new(),
    };
    let core = core.with_fact(Fact::Irq(descriptor.irq.get()));
    source.merge(match disabled {
        Some(reason) => core.with_obstacle(reason),
        None => core.with_fact(Fact::Runs(descriptor.counts.per_cpu().sum())),
    })
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

/// Returns the source's explanation. If its obstacle is a mask, and the core has a reason to mask
/// the interrupt, replaces the mask with this reason.
fn masked_because(source: &Explanation, reason: Option<Obstacle>) -> Explanation {
    match (source.obstacle(), reason) {
        (Some(Obstacle::VectorMasked { .. } | Obstacle::Disabled { .. }), Some(reason)) => {
            source.caused_by(reason)
        }
        _ => *source,
    }
}

fn target_offline(interrupt: IrqRef<'_>) -> Option<Obstacle> {
    let Descriptor { source, .. } = interrupt.descriptor;
    let cpu = interrupt.descriptor.target();
    let has_target = !matches!(source, Source::PerCpu(_));
    (has_target && !interrupt.runtime.is_online(cpu)).then_some(Obstacle::Offline { cpu })
}
