//! Saved states of tables and capabilities: round trips, and states that no guest can produce.

use crate::controller::Controller;
use irq_routing::msi::{MsiCapability, MsiLayout};
use irq_routing::msix::{BusMaster, MsixTable};
use irq_routing::saved_state::{MsiState, MsixState, StateError};
use irq_routing::{GsiSpace, Router, Sender};
use msi_types::DeviceId;
use msi_types::pci::msix::Control;
use proptest::prelude::*;
use std::sync::Arc;

const VECTORS: u16 = 70;
const LAYOUT: MsiLayout = MsiLayout { log2_vectors: 3, address_64: true, per_vector_masking: true };

fn router() -> (Arc<Router>, Arc<Controller>) {
    let controller = Arc::new(Controller::default());
    let router = Router::new(GsiSpace::default(), controller.inputs()).unwrap();
    (Arc::new(router), controller)
}

fn table() -> (MsixTable, Arc<Controller>) {
    let (router, controller) = router();
    let sender = Sender::Device(DeviceId::new(8));
    (MsixTable::new(VECTORS, sender, router).unwrap(), controller)
}

fn capability(layout: MsiLayout) -> (MsiCapability, Arc<Controller>) {
    let (router, controller) = router();
    let sender = Sender::Device(DeviceId::new(8));
    (MsiCapability::new(layout, 0, sender, router).unwrap(), controller)
}

fn bus_masters() -> impl Strategy<Value = BusMaster> {
    prop_oneof![Just(BusMaster::Enabled), Just(BusMaster::Disabled)]
}

fn through_json<T: serde::Serialize + serde::de::DeserializeOwned>(state: &T) -> T {
    serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
}

fn bytes_of(table: &MsixTable) -> Vec<u8> {
    let mut bytes = vec![0; usize::from(VECTORS) * 16 + 16];
    let (entries, pending) = bytes.split_at_mut(usize::from(VECTORS) * 16);
    (0..).step_by(8).zip(entries.chunks_mut(8)).for_each(|(at, word)| table.read(at, word));
    (0..).step_by(8).zip(pending.chunks_mut(8)).for_each(|(at, word)| table.read_pending(at, word));
    bytes
}

proptest! {
    #[test]
    fn a_restored_table_behaves_like_the_saved_one(
        writes in prop::collection::vec((0u64..u64::from(VECTORS) * 4, any::<u32>()), 0..80),
        signals in prop::collection::vec(0..VECTORS, 0..20),
        control in any::<u16>(),
        bus_master in bus_masters(),
    ) {
        let (table, controller) = table();
        table.set_bus_master(bus_master);
        for (word, value) in writes {
            table.write(word * 4, &value.to_le_bytes());
        }
        table.write_control(Control::from_bits(control));
        for vector in signals {
            table.signal(vector);
        }
        controller.heard();
        let saved = table.save();
        let (restored, hears) = self::table();
        restored.restore(&through_json(&saved)).unwrap();
        prop_assert_eq!(hears.heard(), []);
        prop_assert_eq!(restored.save(), saved);
        prop_assert_eq!(bytes_of(&restored), bytes_of(&table));
        prop_assert_eq!(restored.control(), table.control());
        for both in [&table, &restored] {
            both.write_control(Control::new().with_enable(true));
            both.set_bus_master(BusMaster::Enabled);
        }
        prop_assert_eq!(hears.heard(), controller.heard());
    }

    #[test]
    fn a_restored_capability_behaves_like_the_saved_one(
        log2_vectors in 0u8..6,
        address_64: bool,
        per_vector_masking: bool,
        bytes in prop::collection::vec(any::<u8>(), 24),
        signals in prop::collection::vec(0u16..32, 0..20),
        bus_master in bus_masters(),
    ) {
        let layout = MsiLayout { log2_vectors, address_64, per_vector_masking };
        let (msi, controller) = capability(layout);
        msi.set_bus_master(bus_master);
        msi.write(0, &bytes);
        for vector in signals {
            msi.signal(vector);
        }
        controller.heard();
        let saved = msi.save();
        let (restored, hears) = capability(layout);
        restored.restore(&through_json(&saved)).unwrap();
        prop_assert_eq!(restored.save(), saved);
        prop_assert_eq!(hears.heard(), []);
        for both in [&msi, &restored] {
            both.set_bus_master(BusMaster::Enabled);
            both.write(4, &Controller::ITS.to_le_bytes()[..4]);
            both.write(if address_64 { 16 } else { 12 }, &[0; 4]);
        }
        let both = [&msi, &restored].map(|msi| {
            let mut bytes = [0; 24];
            msi.read(0, &mut bytes);
            bytes
        });
        prop_assert_eq!(both[0], both[1]);
        prop_assert_eq!(hears.heard(), controller.heard());
    }

    /// A state that is not refused must be saved again unchanged.
    #[test]
    fn an_accepted_capability_state_is_saved_again_unchanged(
        control: u16, address: u64, data: u16, masks: u32, pending: u32, tame: bool,
        bus_master in bus_masters(),
    ) {
        let possible = (control & 0x31 | 0x186, address & !3, masks & 0xff, pending & masks & 0xff);
        let drawn = (control, address, masks, pending);
        let (control, address, masks, pending) = if tame { possible } else { drawn };
        let (msi, _) = capability(LAYOUT);
        let before = msi.save();
        let mut state = before.clone();
        (state.control, state.bus_master) = (control, bus_master);
        (state.address, state.data) = (address, data);
        (state.masks, state.pending) = (masks, pending);
        let restored = msi.restore(&state).is_ok();
        prop_assert_eq!(restored, tame);
        prop_assert_eq!(msi.save(), if tame { state } else { before });
    }
}

#[test]
fn impossible_table_states_are_refused() {
    let (table, _) = table();
    table.write_control(Control::new().with_enable(true));
    table.signal(3);
    let good = table.save();
    let with = |change: &dyn Fn(&mut MsixState)| {
        let mut state = good.clone();
        change(&mut state);
        let refused = table.restore(&state).unwrap_err();
        assert_eq!(table.save(), good);
        refused
    };
    assert_eq!(with(&|state| state.version = 3), StateError::Version(3));
    let (here, other) = (0x8045, 0x8044);
    let refused = StateError::OtherFunction { saved: other, entries: 70, here };
    assert_eq!(with(&|state| state.control = other), refused);
    let refused = StateError::OtherFunction { saved: here, entries: 69, here };
    assert_eq!(with(&|state| state.entries.truncate(69)), refused);
    let reserved = |register, value| StateError::ReservedBits { register, value };
    assert_eq!(with(&|state| state.entries[1][0] = 2), reserved("Message Address", 2));
    assert_eq!(with(&|state| state.entries[69][3] = 5), reserved("Vector Control", 4));
    assert_eq!(with(&|state| state.pending = vec![70]), StateError::Pending(70));
    assert_eq!(with(&|state| state.pending = vec![5, 5]), StateError::Pending(5));
}

#[test]
fn version_1_states_restore_with_bus_mastering_enabled() {
    let ((table, _), (msi, _)) = (table(), capability(LAYOUT));
    let mut states =
        [serde_json::to_value(table.save()).unwrap(), serde_json::to_value(msi.save()).unwrap()];
    for state in &mut states {
        state["version"] = 1.into();
        assert!(state.as_object_mut().unwrap().remove("bus_master").is_some());
    }
    table.set_bus_master(BusMaster::Disabled);
    msi.set_bus_master(BusMaster::Disabled);
    let [of_table, of_msi] = states;
    table.restore(&serde_json::from_value(of_table).unwrap()).unwrap();
    msi.restore(&serde_json::from_value(of_msi).unwrap()).unwrap();
    assert_eq!([table.save().bus_master, msi.save().bus_master], [BusMaster::Enabled; 2]);
    assert_eq!((table.save().version, msi.save().version), (2, 2));
}

#[test]
fn a_saved_state_with_an_unknown_field_is_refused() {
    let (msi, _) = capability(LAYOUT);
    let mut json = serde_json::to_value(msi.save()).unwrap();
    json["gsi"] = 24.into();
    assert!(serde_json::from_value::<MsiState>(json).is_err());
}

#[test]
fn impossible_capability_states_are_refused() {
    let (msi, _) = capability(LAYOUT);
    let good = msi.save();
    let with = |change: &dyn Fn(&mut MsiState)| {
        let mut state = good.clone();
        change(&mut state);
        let refused = msi.restore(&state).unwrap_err();
        assert_eq!(msi.save(), good);
        refused
    };
    assert_eq!(with(&|state| state.version = 0), StateError::Version(0));
    let (saved, here) = (0x0106, good.control);
    let other = StateError::OtherFunction { saved, entries: 0, here };
    assert_eq!(with(&|state| state.control = saved), other);
    let reserved = |register, value| StateError::ReservedBits { register, value };
    let unaligned = with(&|state| state.address = 0xfee0_0001);
    assert_eq!(unaligned, reserved("Message Address", 0xfee0_0001));
    let masks = with(&|state| state.masks = 0x100);
    assert_eq!(masks, reserved("Mask Bits", 0x100));
    let pending = with(&|state| state.pending = 0x100);
    assert_eq!(pending, reserved("Pending Bits", 0x100));
}
