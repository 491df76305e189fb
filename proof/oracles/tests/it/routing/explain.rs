//! Explanations that follow a vector or GSI along its route into the model of the controller.

use super::machine::{LPI, Machine, to_frame, to_its};
use super::{MESSAGE, NVME, WIRE, router};
use irq_routing::msix::{MsixTable, Signaled};
use irq_routing::{Change, Route, Routing, Sender};
use msi_types::explain::{Fact, Obstacle, TargetState};
use msi_types::pci::msix::Control;
use msi_types::{Cpu, Delivery, DeviceId, EventId, HwIrq, MsiMessage};

const CPU: Cpu = Cpu::new(0);

/// Returns a table whose vector 0 sends this message.
fn table(machine: &Machine, message: MsiMessage) -> MsixTable {
    let table = MsixTable::new(1, Sender::Device(NVME), router(machine)).unwrap();
    program(&table, message);
    table
}

fn program(table: &MsixTable, message: MsiMessage) {
    table.write(0, &message.address.to_le_bytes());
    table.write(8, &u64::from(message.data).to_le_bytes());
    table.write_control(Control::new().with_enable(true));
}

#[test]
fn a_vector_is_explained_up_to_its_cpu() {
    let mut machine = Machine::new();
    machine.map(NVME);
    let table = table(&machine, to_its(9));
    assert_eq!(table.signal(0), Signaled::Sent(Delivery::Pending));
    let explanation = table.explain(0);
    assert_eq!(explanation.obstacle(), None);
    let interrupt = HwIrq::new(LPI + 9);
    let expected = [
        Fact::Message(to_its(9)),
        Fact::Doorbell(to_its(9).address),
        Fact::Event { device: NVME, event: EventId::new(9), interrupt },
        Fact::Enabled(0xa0),
        Fact::Pending(interrupt),
        Fact::Target(CPU, TargetState::Awake),
        Fact::Signaled(CPU),
    ];
    assert!(explanation.facts().eq(expected));
    assert_eq!(machine.take_all(), [u64::from(LPI) + 9]);
    assert_eq!(table.explain(0).obstacle(), Some(Obstacle::NotPending { interrupt }));
}

#[test]
fn explain_reports_a_wrong_doorbell_address() {
    let machine = Machine::new();
    let wrong = MsiMessage { address: to_its(0).address - 0x1_0000, data: 0 };
    let (address, doorbell) = (wrong.address, Some(to_its(0).address));
    let expected = Obstacle::NoDoorbell { address, doorbell };
    assert_eq!(table(&machine, wrong).explain(0).obstacle(), Some(expected));
}

#[test]
fn an_explanation_of_a_gsi_includes_the_controllers_obstacle() {
    let machine = Machine::new();
    let router = router(&machine);
    let unmapped = Obstacle::UnmappedDevice { device: NVME, mapped: 0 };
    assert_eq!(router.explain(MESSAGE).obstacle(), Some(unmapped));
    let interrupt = HwIrq::new(40);
    assert_eq!(router.explain(WIRE).obstacle(), Some(Obstacle::Disabled { interrupt }));
    router.commit(&[Change::Set(MESSAGE, Route::to_doorbell(to_its(9)))]).unwrap();
    let address = to_its(9).address;
    assert_eq!(router.explain(MESSAGE).obstacle(), Some(Obstacle::NoIdentity { address }));
    let from_device = Route::to_its(DeviceId::new(0x109), to_frame(85));
    router.commit(&[Change::Set(MESSAGE, from_device)]).unwrap();
    let interrupt = HwIrq::new(85);
    assert_eq!(router.explain(MESSAGE).obstacle(), Some(Obstacle::LevelSensitive { interrupt }));
}

/// <https://github.com/microsoft/openvmm/pull/3441>: the monitor signals an ITS without a DeviceID
/// (`KVM_MSI_VALID_DEVID` is not set).
#[test]
fn an_explanation_reports_a_message_without_device_id() {
    let machine = Machine::new();
    machine.map(NVME);
    let anonymous = MsixTable::new(1, Sender::Anonymous, router(&machine)).unwrap();
    program(&anonymous, to_its(9));
    let address = to_its(9).address;
    assert_eq!(anonymous.explain(0).obstacle(), Some(Obstacle::NoIdentity { address }));
}

/// <https://github.com/cloud-hypervisor/cloud-hypervisor/issues/3495>: the monitor did not set the
/// function's address, so the function's messages carry DeviceID 0.
#[test]
fn explain_reports_an_unmapped_device_id_0() {
    let machine = Machine::new();
    machine.map(NVME);
    let device = DeviceId::new(0);
    let table = MsixTable::new(1, Sender::Device(device), router(&machine)).unwrap();
    program(&table, to_its(9));
    let expected = Obstacle::UnmappedDevice { device, mapped: 1 };
    assert_eq!(table.explain(0).obstacle(), Some(expected));
}

/// If several faults exist between a vector and its CPU, the explanation names the first one.
#[test]
fn an_explanation_reports_masks_before_the_controller() {
    let machine = Machine::new();
    let table = table(&machine, to_its(9));
    let obstacle = || table.explain(0).obstacle();
    assert_eq!(obstacle(), Some(Obstacle::UnmappedDevice { device: NVME, mapped: 0 }));
    let wrong = to_its(0).address - 0x1_0000;
    table.write(0, &wrong.to_le_bytes());
    let doorbell = Some(to_its(0).address);
    assert_eq!(obstacle(), Some(Obstacle::NoDoorbell { address: wrong, doorbell }));
    table.write(12, &1u32.to_le_bytes());
    assert_eq!(obstacle(), Some(Obstacle::VectorMasked { vector: 0, pending: false }));
    table.write_control(Control::new().with_enable(true).with_function_mask(true));
    assert_eq!(obstacle(), Some(Obstacle::FunctionMasked));
    table.write_control(Control::new());
    assert_eq!(obstacle(), Some(Obstacle::MessagesDisabled));
}
