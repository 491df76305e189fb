//! Random accesses and messages, applied to a table and to a model of it.

use super::{Rig, event, pending, read32};
use crate::controller::{Controller, Heard};
use irq_routing::msix::{BusMaster, MsixTable, Signaled};
use msi_types::Delivery;
use msi_types::pci::msix::Control;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Write { word: u64, wide: bool, values: [u32; 2] },
    Control(Control),
    BusMaster(BusMaster),
    Signal(u16),
    Reset,
}

fn steps() -> impl Strategy<Value = Step> {
    let low = prop_oneof![Just(0x0809_0040u32), Just(0x0809_0043), any::<u32>()];
    let value = prop_oneof![4 => low, 4 => 0u32..2, 1 => any::<u32>()];
    prop_oneof![
        6 => (0u64..24, any::<bool>(), [value.clone(), value])
            .prop_map(|(word, wide, values)| Step::Write { word, wide, values }),
        2 => (prop::bool::weighted(0.8), any::<bool>()).prop_map(|(enable, mask)| {
            Step::Control(Control::from(0x07ff).with_enable(enable).with_function_mask(mask))
        }),
        2 => prop_oneof![3 => Just(BusMaster::Enabled), 1 => Just(BusMaster::Disabled)]
            .prop_map(Step::BusMaster),
        4 => (0u16..6).prop_map(Step::Signal),
        1 => Just(Step::Reset),
    ]
}

/// Simplest possible model of a table.
#[derive(Default)]
struct Model {
    words: [[u32; 4]; 5],
    pending: [bool; 5],
    enable: bool,
    mask: bool,
    bus_master: BusMaster,
}

impl Model {
    fn new() -> Self {
        Self { words: [[0, 0, 0, 1]; 5], ..Self::default() }
    }

    fn open(&self, vector: usize) -> bool {
        let sends = self.enable && !self.mask && self.bus_master == BusMaster::Enabled;
        sends && self.words[vector][3] == 0
    }

    fn message(&self, vector: usize) -> Option<Heard> {
        let [low, high, data, _] = self.words[vector];
        (u64::from(high) << 32 | u64::from(low) == Controller::ITS).then_some(event(data))
    }

    /// Opens and closes vectors. Returns the messages that are sent as a result.
    fn settle(&mut self) -> Vec<Heard> {
        let sent =
            (0..5).filter(|vector| self.open(*vector) && self.pending[*vector]).collect::<Vec<_>>();
        sent.into_iter()
            .filter_map(|vector| {
                self.pending[vector] = false;
                self.message(vector)
            })
            .collect()
    }

    fn write(&mut self, word: usize, value: u32) {
        if let Some(entry) = self.words.get_mut(word / 4) {
            entry[word % 4] = [value & !3, value, value, value & 1][word % 4];
        }
    }

    fn step(&mut self, step: &Step) -> (Vec<Heard>, Option<Signaled>) {
        match *step {
            Step::Write { word, wide, values } => {
                let at = usize::try_from(word).unwrap();
                let count = if wide { 2 } else { 1 };
                (0..count).for_each(|index| self.write(at / count * count + index, values[index]));
            }
            Step::Control(control) => {
                (self.enable, self.mask) = (control.enable(), control.function_mask());
            }
            Step::Signal(vector) if vector >= 5 => return (vec![], Some(Signaled::NoSuchVector)),
            Step::Signal(vector) => {
                let vector = usize::from(vector);
                if !self.open(vector) {
                    self.pending[vector] = true;
                    return (vec![], Some(Signaled::Held));
                }
                let heard = self.message(vector);
                let delivery =
                    if heard.is_some() { Delivery::Pending } else { Delivery::NoDoorbell };
                return (heard.into_iter().collect(), Some(Signaled::Sent(delivery)));
            }
            Step::BusMaster(bus_master) => self.bus_master = bus_master,
            Step::Reset => *self = Self { bus_master: self.bus_master, ..Self::new() },
        }
        (self.settle(), None)
    }
}

fn act(table: &MsixTable, step: &Step) -> Option<Signaled> {
    match *step {
        Step::Write { word, wide: false, values: [value, _] } => {
            table.write(word * 4, &value.to_le_bytes());
        }
        Step::Write { word, wide: true, values: [low, high] } => {
            let value = u64::from(high) << 32 | u64::from(low);
            table.write(word / 2 * 8, &value.to_le_bytes());
        }
        Step::Control(control) => table.write_control(control),
        Step::BusMaster(bus_master) => table.set_bus_master(bus_master),
        Step::Signal(vector) => return Some(table.signal(vector)),
        Step::Reset => table.reset(),
    }
    None
}

proptest! {
    #[test]
    fn msix_table_matches_its_model(steps in prop::collection::vec(steps(), 0..60)) {
        let rig = Rig::new(5);
        let mut model = Model::new();
        for step in steps {
            let (heard, signaled) = model.step(&step);
            prop_assert_eq!(act(&rig.table, &step), signaled);
            prop_assert_eq!(rig.controller.heard(), heard, "after {:?}", step);
            for (word, value) in (0..).zip(model.words.as_flattened()) {
                prop_assert_eq!(read32(&rig.table, word * 4), *value);
            }
            let bits =
                model.pending.iter().rev().fold(0, |bits, pending| bits << 1 | u32::from(*pending));
            prop_assert_eq!(pending(&rig.table, 0), bits);
            let open = (0..5).map(|vector| model.open(vector));
            let sends: Vec<_> = (0..5).map(|vector| rig.table.message(vector).is_some()).collect();
            prop_assert!(open.eq(sends));
        }
        prop_assert_eq!(rig.router.routes(), []);
    }
}
