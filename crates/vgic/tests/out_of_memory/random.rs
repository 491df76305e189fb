//! Executes random commands with an allocator that fails at random.

use super::{is_idle, run_with};
use crate::saved_state::board::Board;
use doorbell_test_support::guest::{mapc, mapd, mapti, movall, unmapc};
use doorbell_test_support::with_allocations;
use gic_arch::its::{CollectionId, Command, MapAction};
use msi_types::{DeviceId, EventId};
use proptest::prelude::*;
use vgic::Progress;
use vgic::saved_state::SavedState;

const ITT: u64 = 0x4000_0100;

#[derive(Clone, Debug)]
enum Step {
    /// A command, and the number of allocations that succeed during it.
    Command(Command, u32),
    /// A message.
    Send(u32, u32),
    /// A vCPU handles its pending interrupts.
    Handle(usize),
}

/// Generates devices with few and with many events, with widely spaced DeviceIDs.
fn device() -> impl Strategy<Value = u32> {
    prop_oneof![Just(1), Just(2), Just(0x300), Just(0x1301)]
}

fn event() -> impl Strategy<Value = u32> {
    prop_oneof![0..4_u32, (0..4_u32).prop_map(|high| high << 8)]
}

fn command() -> impl Strategy<Value = Command> {
    let (collection, cpu) = (0..6_u16, 0..3_u16);
    let named = |device, event| (DeviceId::new(device), EventId::new(event));
    prop_oneof![
        2 => (device(), 2..12_u8).prop_map(|(device, bits)| mapd(device, bits, ITT)),
        1 => device().prop_map(|device| Command::Mapd {
            device: DeviceId::new(device),
            itt: 0,
            event_bits_minus_one: 0,
            action: MapAction::Unmap,
        }),
        2 => (collection.clone(), cpu.clone()).prop_map(|(collection, cpu)| mapc(collection, cpu)),
        1 => collection.clone().prop_map(unmapc),
        // Each event has its own LPI.
        6 => (device(), event(), collection.clone()).prop_map(|(device, event, collection)| {
            let lpi = 8192 + (device % 8) * 32 + (event & 3) * 4 + (event >> 8);
            mapti(device, event, lpi, collection)
        }),
        2 => (device(), event(), collection).prop_map(move |(device, event, collection)| {
            let (device, event) = named(device, event);
            Command::Movi { device, event, collection: CollectionId::new(collection) }
        }),
        1 => (device(), event()).prop_map(move |(device, event)| {
            let (device, event) = named(device, event);
            Command::Discard { device, event }
        }),
        1 => (device(), event()).prop_map(move |(device, event)| {
            let (device, event) = named(device, event);
            Command::Inv { device, event }
        }),
        1 => (cpu.clone(), cpu).prop_map(|(from, to)| movall(from, to)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let allocations = prop_oneof![0..4_u32, Just(u32::MAX)];
    prop_oneof![
        6 => (command(), allocations)
            .prop_map(|(command, allocations)| Step::Command(command, allocations)),
        3 => (device(), event()).prop_map(|(device, event)| Step::Send(device, event)),
        1 => (0..3_usize).prop_map(Step::Handle),
    ]
}

fn board() -> Board {
    let board = Board::running();
    for lpi in 0..256_u32 {
        board.configure(8192 + lpi, lpi % 5 != 0, 0x20 * u8::try_from(lpi % 7).unwrap());
    }
    board
}

/// Saves the machine without the state of the queue.
fn saved(board: &mut Board) -> SavedState {
    let mut state = board.save();
    for its in &mut state.its {
        (its.creadr, its.cwriter) = (0, 0);
    }
    state
}

fn handled(board: &mut Board, cpu: usize) -> Vec<u64> {
    let mut handled = board.handle_all(cpu);
    handled.sort_unstable();
    handled
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn short_of_memory_accepted_commands_take_effect(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let (mut short, mut reference) = (board(), board());
        for step in steps {
            match step {
                Step::Command(command, allocations) => {
                    let faults = short.gic.command_faults(0).unwrap().count;
                    run_with(&short, allocations, [command]);
                    // A command in progress must complete once allocations succeed again.
                    prop_assert_eq!(short.gic.poll(), Progress::Done);
                    prop_assert!(is_idle(&short));
                    if short.gic.command_faults(0).unwrap().count == faults {
                        prop_assert!(run_with(&reference, u32::MAX, [command]), "{command:?}");
                    }
                }
                Step::Send(device, event) => {
                    let sent = with_allocations(0, || short.send(device, event));
                    prop_assert_eq!(sent, reference.send(device, event));
                }
                Step::Handle(cpu) => {
                    prop_assert_eq!(handled(&mut short, cpu), handled(&mut reference, cpu));
                }
            }
        }
        prop_assert_eq!(saved(&mut short), saved(&mut reference));
        for cpu in 0..3 {
            prop_assert_eq!(handled(&mut short, cpu), handled(&mut reference, cpu));
        }
    }
}
