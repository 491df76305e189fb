//! The binary form of a machine's state: its size, and bytes that were damaged.

use super::Machine;
use proptest::collection::vec;
use proptest::prelude::*;
use vgic_monitor::gic_arch::IntId;
use vgic_monitor::gic_arch::its::CollectionId;
use vgic_monitor::machine_state::{BytesError, MachineState};
use vgic_monitor::msi_types::{DeviceId, EventId};
use vgic_monitor::vgic::VgicConfig;
use vgic_monitor::vgic::its::ItsConfig;
use vgic_monitor::vgic::saved_state::{DeviceState, EventState};

/// Length of the characters at the beginning.
const MAGIC: usize = 8;

/// Returns the state of a machine with an MSI-X table and these devices.
fn state(devices: Vec<DeviceState>) -> MachineState {
    let mut state = Machine::with(config(20), 2).save();
    state.gic.its[0].devices = devices;
    state
}

fn config(id_bits: u8) -> VgicConfig {
    let its = vec![ItsConfig::new(0x0808_0000)];
    VgicConfig::new(2).with_lpi_id_bits(Some(id_bits)).with_its(its)
}

fn device(number: u32, events: impl IntoIterator<Item = EventState>) -> DeviceState {
    let mut device = DeviceState::new(DeviceId::new(number), 16, 0xffff_ffff_ff00);
    device.events.extend(events);
    device
}

fn event(event: u32, intid: u32, collection: u16) -> EventState {
    let (event, intid) = (EventId::new(event), IntId::new(intid));
    let mut state = EventState::new(event, intid, CollectionId::new(collection));
    state.configuration = Some(0xa3);
    state
}

#[test]
fn an_lpi_takes_at_most_14_bytes() {
    let last = (1 << 20) - 1;
    let few = state(vec![device(u32::MAX, [])]).to_bytes().len();
    let events = (0..0x1_0000).map(|number| event(number, last - number, u16::MAX));
    let many = state(vec![device(u32::MAX, events)]).to_bytes().len();
    // The device's number of events is two bytes longer.
    assert!(many - few <= 14 * 0x1_0000 + 2, "{} bytes", many - few);
}

#[test]
fn the_reader_detects_every_flipped_bit() {
    let bytes = state(vec![device(5, [event(0, 8192, 1)])]).to_bytes();
    for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << bit;
        let error = MachineState::from_bytes(&damaged).unwrap_err();
        match error {
            BytesError::NoState => assert!(at < MAGIC),
            BytesError::Version(_) => assert_eq!(at, MAGIC),
            BytesError::Damaged { offset } => assert!(offset >= MAGIC, "{at}: {error}"),
            _ => assert!(at > MAGIC, "{at}: {error}"),
        }
    }
}

#[test]
fn an_error_reports_the_offset_of_an_invalid_value() {
    let state = state(vec![device(5, [event(0, 8192, 1)])]);
    let bytes = state.to_bytes();
    let entries = [5, 16, 0x80, 0xfe, 0xff, 0xff, 0xff, 0xff, 0x3f, 1, 0, 0x80, 0x40, 1];
    let at = bytes.windows(entries.len()).position(|part| part == entries).unwrap();
    let mut damaged = bytes;
    damaged[at + entries.len()] = 7; // `pending` of the event
    let offset = at + entries.len() + 1;
    assert_eq!(MachineState::from_bytes(&damaged), Err(BytesError::Damaged { offset }));
}

#[test]
fn an_error_reports_the_offset_of_missing_or_additional_bytes() {
    let bytes = state(Vec::new()).to_bytes();
    for end in MAGIC..bytes.len() {
        let error = MachineState::from_bytes(&bytes[..end]).unwrap_err();
        assert!(matches!(error, BytesError::Damaged { offset } if offset <= end), "{end}: {error}");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    let offset = bytes.len();
    assert_eq!(MachineState::from_bytes(&longer), Err(BytesError::Damaged { offset }));
}

#[test]
fn the_reader_stops_after_65536_functions() {
    let mut state = state(Vec::new());
    let function = state.functions.remove(0);
    state.functions = vec![function; 1 << 16];
    let most = state.to_bytes();
    assert!(MachineState::from_bytes(&most).is_ok());
    state.functions.extend_from_within(..9);
    // The bytes of the first function too many are the last to be read.
    let length = (state.to_bytes().len() - most.len()) / 9;
    let offset = most.len() - size_of::<u32>() + length;
    let error = MachineState::from_bytes(&state.to_bytes());
    assert_eq!(error, Err(BytesError::Damaged { offset }));
}

#[test]
fn states_of_version_1_are_read_and_restored() {
    let bytes = MachineState::from_bytes(include_bytes!("version-1.bin")).unwrap();
    let json = serde_json::from_str(include_str!("version-1.json")).unwrap();
    assert_eq!(bytes, json);
    assert_eq!(MachineState::from_bytes(&bytes.to_bytes()).unwrap().gic, bytes.gic);
    let mut other = Machine::with(config(16), 3);
    other.restore(&bytes).unwrap();
    let (functions, distributor) = (bytes.functions, bytes.gic.distributor);
    let restored = other.save();
    assert_eq!((restored.functions, restored.gic.distributor), (functions, distributor));
}

#[test]
fn an_error_names_an_unsupported_version() {
    let mut later = state(Vec::new());
    later.version = 300;
    assert_eq!(MachineState::from_bytes(&later.to_bytes()), Err(BytesError::Version(300)));
}

proptest! {
    #[test]
    fn a_machine_state_round_trips_through_its_binary_form(
        devices in vec((any::<u32>(), vec(any::<(u32, u32, u16, bool, Option<u8>)>(), 0..9)), 0..4),
    ) {
        let event = |of: (u32, u32, u16, bool, Option<u8>)| {
            let mut state = event(of.0, of.1, of.2);
            (state.pending, state.configuration) = (of.3, of.4);
            state
        };
        let devices = devices.into_iter();
        let devices = devices.map(|(number, events)| device(number, events.into_iter().map(event)));
        let state = state(devices.collect());
        prop_assert_eq!(MachineState::from_bytes(&state.to_bytes()), Ok(state));
    }

    #[test]
    fn the_reader_rejects_random_bytes(body in vec(any::<u8>(), 0..200)) {
        let bytes = [b"GICSTATE\x02".as_slice(), &body].concat();
        prop_assert!(MachineState::from_bytes(&bytes).is_err());
    }
}
