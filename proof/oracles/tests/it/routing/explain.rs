//! Explanations that follow a vector or GSI along its route into the model of the controller.

use super::machine::{LPI, machine, map, take_all, to_frame, to_its};
use super::{MESSAGE, NVME, WIRE, router};
use doorbell_test_support::guest::Machine;
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
    let mut machine = machine();
    map(&machine, NVME);
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
    assert_eq!(take_all(&mut machine), [u64::from(LPI) + 9]);
    assert_eq!(table.explain(0).obstacle(), Some(Obstacle::NotPending { interrupt }));
}

#[test]
fn an_explanation_of_a_gsi_includes_the_controllers_obstacle() {
    let machine = machine();
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

#[test]
fn an_explanation_names_a_wrong_device_id() {
    let machine = machine();
    map(&machine, NVME);
    let (address, device) = (to_its(9).address, DeviceId::new(0));
    for (sender, obstacle) in [
        // The monitor doesn't set KVM_MSI_VALID_DEVID:
        // https://github.com/microsoft/openvmm/pull/3441
        (Sender::Anonymous, Obstacle::NoIdentity { address }),
        // The monitor does not set the function's address:
        // https://github.com/cloud-hypervisor/cloud-hypervisor/issues/3495
        (Sender::Device(device), Obstacle::UnmappedDevice { device, mapped: 1 }),
    ] {
        let table = MsixTable::new(1, sender, router(&machine)).unwrap();
        program(&table, to_its(9));
        assert_eq!(table.explain(0).obstacle(), Some(obstacle));
    }
}

/// If several faults exist between a vector and its CPU, the explanation names the first one.
#[test]
fn an_explanation_reports_masks_before_the_controller() {
    let machine = machine();
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
