//! Obstacles at the target: sleep, groups, priorities, list registers and kicks.

use super::guest::{CPU, DEVICE, EVENT, Guest, facts};
use doorbell_test_support::guest::{Field, Machine, inv};
use gic_arch::icc;
use gic_arch::its::Command;
use msi_types::explain::{Fact, Obstacle, TargetState};
use msi_types::{Cpu, HwIrq};
use vgic::{SecurityView, Sleep, VgicConfig};

/// Returns a guest whose event was sent after `plant` had changed the machine.
fn sent_after(plant: impl FnOnce(&mut Machine)) -> Guest {
    let mut guest = Guest::working();
    plant(&mut guest.machine);
    guest.send();
    guest
}

#[test]
fn explain_considers_the_binary_point_for_preemption() {
    let mut guest = Guest::working();
    guest.send();
    guest.machine.acknowledge(0);
    // Priorities 0xa0 and 0x80 differ only in bit 5.
    guest.configure(0x81);
    guest.machine.run([inv(DEVICE.get(), EVENT.get())]);
    guest.send();
    assert_eq!(guest.obstacle(), None);
    guest.machine.msr(0, icc::BPR1.encoding(), 6);
    let expected = Obstacle::PriorityNotHigher { priority: 0x80, running: 0xa0, cpu: CPU };
    assert_eq!(guest.obstacle(), Some(expected));
}

#[test]
fn explain_shows_a_priority_truncated_by_the_binary_point() {
    for (configuration, binary_point, group_priority) in
        [(0x91, 6, Some(0x80)), (0x91, 5, None), (0xb1, 5, Some(0xa0)), (0xb1, 4, None)]
    {
        let mut guest = Guest::working();
        guest.machine.msr(0, icc::BPR1.encoding(), binary_point);
        guest.send();
        guest.machine.acknowledge(0);
        guest.configure(configuration);
        guest.machine.run([Command::Inv { device: DEVICE, event: EVENT }]);
        guest.send();
        let (priority, binary_point) = (configuration & 0xfc, u8::try_from(binary_point).unwrap());
        let shown = facts(&guest.explain())
            .into_iter()
            .find(|fact| matches!(fact, Fact::GroupPriority { .. }));
        let expected = group_priority.map(|group_priority| Fact::GroupPriority {
            priority,
            group_priority,
            binary_point,
        });
        assert_eq!(shown, expected, "{configuration:#x} {binary_point}");
    }
}

#[test]
fn explain_considers_active_priorities_written_by_software() {
    let guest = sent_after(|machine| machine.msr(0, icc::AP1R0.encoding(), 1));
    let expected = Obstacle::PriorityNotHigher { priority: 0xa0, running: 0, cpu: CPU };
    assert_eq!(guest.obstacle(), Some(expected));
}

#[test]
fn explain_reports_a_guest_priority_mask_after_the_vm_exit() {
    let mut guest = Guest::working();
    let mut vcpu = guest.machine.list_register_vcpu();
    let inside = vcpu.enter();
    let mut left = *inside.interface();
    left.vmcr = left.vmcr.with_vpmr(0);
    inside.exit(&left);
    guest.send();
    let expected = Obstacle::PriorityMasked { priority: 0xa0, mask: 0, cpu: CPU };
    assert_eq!(guest.obstacle(), Some(expected));
}

#[test]
fn explain_reports_the_target_as_kicked_until_it_returns() {
    let target = |guest: &Guest| {
        facts(&guest.explain()).into_iter().find(|fact| matches!(fact, Fact::Target(..)))
    };
    let state = |state| Some(Fact::Target(CPU, state));
    let mut guest = Guest::working();
    guest.machine.msr(0, icc::PMR.encoding(), 0);
    guest.send();
    assert_eq!(target(&guest), state(TargetState::InMonitor));
    assert_eq!(guest.machine.vcpus[0].prepare_to_sleep(), Sleep::Ready);
    assert_eq!(target(&guest), state(TargetState::NeedsKick));
    guest.machine.vcpus[0].returned();
    assert_eq!(target(&guest), state(TargetState::InMonitor));

    let mut guest = Guest::working();
    assert_eq!(guest.machine.vcpus[0].prepare_to_sleep(), Sleep::Ready);
    guest.send();
    assert_eq!(guest.machine.kicks.of(0), 1);
    assert_eq!(target(&guest), state(TargetState::Kicked));
    guest.machine.vcpus[0].returned();
    assert_eq!(target(&guest), state(TargetState::InMonitor));
}

#[test]
fn explain_shows_priorities_as_the_guest_configures_them() {
    let config = VgicConfig::new(1).with_security(SecurityView::NonSecure);
    let mut machine = Machine::running(config);
    machine.enable_spi(40);
    machine.set_field(0, Field::Priority, 40, 0xa0);
    machine.msr(0, icc::PMR.encoding(), 0x80);
    machine.raise(40);
    let explanation = machine.gic.explain_interrupt(Cpu::new(0), gic_arch::IntId::new(40));
    let expected = Obstacle::PriorityMasked { priority: 0xa0, mask: 0x80, cpu: CPU };
    assert_eq!(explanation.obstacle(), Some(expected));
    assert!(facts(&explanation).contains(&Fact::Enabled(0xa0)));
    assert!(facts(&explanation).contains(&Fact::Pending(HwIrq::new(40))));
}
