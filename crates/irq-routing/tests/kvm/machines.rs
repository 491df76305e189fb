//! Tests on machines of several kinds, and of the number of routing tables that a monitor sets.

use crate::trials::{FIRST, Machine, eventfd, vector};
use doorbell_test_support::kvm::{Failure, Outcome, Trial, same};
use irq_routing::kvm::{ApicIds, KvmConfig, KvmRouter, RustVmm};
use irq_routing::{
    Change, MessageSink, Pin, Route, RouteError, RoutedMessage, Routing, Sender, SignalError,
};
use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_X2APIC_API, KVM_MAX_CPUID_ENTRIES, KVM_X2APIC_API_USE_32BIT_IDS,
    kvm_enable_cap,
};
use kvm_ioctls::{Kvm, VmFd};
use msi_types::explain::{ExplainInput, Explanation, Fact, Obstacle, Unexamined};
use msi_types::{Delivery, DeviceId, Gsi, Line, MsiMessage};
use std::fs;
use std::sync::Arc;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub(crate) const ALL: &[Trial] = &[
    ("a_file_that_is_no_machine_is_refused", no_machine),
    ("a_split_irqchip_has_no_pins", split),
    ("signaling_a_refused_message_returns_its_error", refusals),
    ("an_explanation_of_a_gsi_includes_the_controllers_obstacle", explained),
    ("extended_destinations_reach_their_apics", extended),
    ("released_gsis_cost_no_table", releases),
    ("a_reused_gsi_never_leads_to_its_former_message", reuse),
];

fn no_machine() -> Outcome {
    let file = fs::File::open("/dev/null")?;
    let refused = KvmRouter::new(file, KvmConfig::new(FIRST)).map(drop);
    same(refused.map_err(|error| error.raw_os_error()), Err(Some(25)))
}

/// Has KVM take APIC IDs of 32 bits, for [`ApicIds::Extended`].
pub(crate) fn enable_extended_ids(vm: &VmFd) -> Outcome {
    enabled(vm, KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS.into())
}

fn enabled(vm: &VmFd, cap: u32, argument: u64) -> Outcome {
    let mut request = kvm_enable_cap { cap, ..kvm_enable_cap::default() };
    request.args[0] = argument;
    Ok(vm.enable_cap(&request)?)
}

/// Creates a machine whose I/O APIC the VMM emulates.
fn split_machine() -> Result<Arc<VmFd>, Failure> {
    let vm = Arc::new(Kvm::new()?.create_vm()?);
    enabled(&vm, KVM_CAP_SPLIT_IRQCHIP, 24)?;
    Ok(vm)
}

fn split() -> Outcome {
    let vm = split_machine()?;
    let vcpu = vm.create_vcpu(0)?;
    let machine = Machine::of(vm, vcpu, KvmConfig::new(FIRST))?;
    let (pin, gsi) = (Gsi::new(5), machine.router.allocate()?);
    same(machine.router.route(pin), None)?;
    same(machine.router.signal(pin), Err(SignalError::Unrouted(pin)))?;
    let to_pin = machine.router.commit(&[Change::Set(pin, Route::Pin(Pin::new(5)?))]);
    same(to_pin, Err(RouteError::Refused { errno: 22 }))?;

    // The VMM's I/O APIC sends a message for its pin.
    machine.router.commit(&[Change::Set(pin, vector(0x35)), Change::Set(gsi, vector(0x41))])?;

    machine.router.signal(pin)?;
    same(machine.arrived()?, vec![0x35])
}

fn refusals() -> Outcome {
    // A machine without an interrupt controller must refuse messages.
    let vm = Arc::new(Kvm::new()?.create_vm()?);
    let router = KvmRouter::new(RustVmm(vm), KvmConfig::new(FIRST))?;
    let message = MsiMessage { address: 0xfee0_0000, data: 0x41 };
    let sent = router.signal_msi(RoutedMessage { sender: Sender::Anonymous, message });
    same(matches!(sent, Err(SignalError::Refused { errno: 6 | 22 })), true)?;
    let bound = router.bind(RustVmm(&eventfd()?), Gsi::new(FIRST)).map(drop);
    same(bound.map_err(|error| error.raw_os_error()), Err(Some(22)))
}

/// A controller that is not examined.
struct Unread;

impl ExplainInput for Unread {
    fn explain_message(&self, _: Option<DeviceId>, message: MsiMessage) -> Explanation {
        self.explain_line(Line::Spi(0)).with_fact(Fact::Doorbell(message.address))
    }

    fn explain_line(&self, _: Line) -> Explanation {
        Explanation::new().with_unexamined(Unexamined::KernelController)
    }
}

fn explained() -> Outcome {
    let router = KvmRouter::new(RustVmm(split_machine()?), KvmConfig::new(FIRST))?;
    let router = router.with_explainer(Arc::new(Unread));
    let gsi = router.allocate()?;
    same(router.explain(gsi).obstacle(), Some(Obstacle::NoRoute { gsi }))?;
    router.commit(&[Change::Set(gsi, vector(0x41))])?;
    let message = MsiMessage { address: 0xfee0_0000, data: 0x41 };
    let facts = [Fact::Message(message), Fact::Doorbell(message.address)];
    let expected = facts.into_iter().fold(Explanation::new(), Explanation::with_fact);
    same(router.explain(gsi), expected.with_unexamined(Unexamined::KernelController))
}

/// Messages for APIC ID 0x101 in the format of a guest that was offered
/// `KVM_FEATURE_MSI_EXT_DEST_ID`.
fn extended() -> Outcome {
    const APIC: u64 = 0x101;
    const X2APIC_ENABLED: u64 = 0xc00;
    let vm = split_machine()?;
    enable_extended_ids(&vm)?;
    let vcpu = vm.create_vcpu(APIC)?;
    vcpu.set_cpuid2(&Kvm::new()?.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
    let mut registers = vcpu.get_sregs()?;
    registers.apic_base |= X2APIC_ENABLED;
    vcpu.set_sregs(&registers)?;
    let config = KvmConfig::new(FIRST).with_apic_ids(ApicIds::Extended);
    let machine = Machine::of(vm, vcpu, config)?;
    let address = 0xfee0_0000 | (APIC & 0xff) << 12 | (APIC >> 8) << 5;
    let message = |data| MsiMessage { address, data };

    let to_apic = RoutedMessage { sender: Sender::Anonymous, message: message(0x41) };
    same(machine.router.signal_msi(to_apic)?, Delivery::Pending)?;
    same(machine.arrived()?, vec![0x41])?;
    let (gsi, device) = (machine.router.allocate()?, eventfd()?);
    machine.router.commit(&[Change::Set(gsi, Route::to_doorbell(message(0x42)))])?;
    let _bound = machine.router.bind(RustVmm(&device), gsi)?;
    device.write(1)?;
    same(machine.arrived()?, vec![0x42])
}

fn releases() -> Outcome {
    let machine = Machine::new()?;
    let gsis: Vec<_> = (0..100).map(|_| machine.router.allocate()).collect::<Result<_, _>>()?;
    let changes: Vec<_> = gsis.iter().map(|gsi| Change::Set(*gsi, vector(0x41))).collect();
    machine.router.commit(&changes)?;
    same(machine.router.updates(), 1)?;

    gsis.iter().try_for_each(|gsi| machine.router.release(&[*gsi]))?;

    same(machine.router.updates(), 1)?;
    for gsi in &gsis {
        same(machine.router.signal(*gsi), Err(SignalError::Unrouted(*gsi)))?;
    }
    machine.router.commit(&changes[..1])?;
    same(machine.router.updates(), 1)?;
    machine.router.signal(gsis[0])?;
    same(machine.arrived()?, vec![0x41])
}

fn reuse() -> Outcome {
    let machine = Machine::new()?;
    let gsi = machine.router.allocate()?;
    machine.router.commit(&[Change::Set(gsi, vector(0x41))])?;
    machine.router.release(&[gsi])?;
    same(machine.router.allocate()?, gsi)?;
    let device = EventFd::new(EFD_NONBLOCK)?;

    let _bound = machine.router.bind(RustVmm(&device), gsi)?;

    device.write(1)?;
    same(machine.arrived()?, vec![])?;
    machine.router.commit(&[Change::Set(gsi, vector(0x42))])?;
    device.write(1)?;
    same(machine.arrived()?, vec![0x42])
}
