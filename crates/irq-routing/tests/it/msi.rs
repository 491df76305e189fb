//! The MSI capability: a model of it, and the registers that PCI specifies.

use crate::controller::{Controller, Heard};
use irq_routing::msi::{BadVectorCount, MsiCapability, MsiLayout};
use irq_routing::msix::{BusMaster, Signaled};
use irq_routing::{GsiSpace, Router, Sender};
use msi_types::{Delivery, DeviceId};
use proptest::prelude::*;
use std::sync::Arc;

const DEVICE: DeviceId = DeviceId::new(8);
/// Offset of the next capability.
const NEXT: u8 = 0x70;
/// Layout with a 64-bit address, mask bits and 4 vectors.
const WIDE: MsiLayout = MsiLayout { log2_vectors: 2, address_64: true, per_vector_masking: true };
/// Layout with a 32-bit address, no mask bits and 32 vectors.
const NARROW: MsiLayout =
    MsiLayout { log2_vectors: 5, address_64: false, per_vector_masking: false };

struct Rig {
    msi: MsiCapability,
    controller: Arc<Controller>,
}

impl Rig {
    fn new(layout: MsiLayout) -> Self {
        let controller = Arc::new(Controller::default());
        let router = Router::new(GsiSpace::default(), controller.inputs()).unwrap();
        let sender = Sender::Device(DEVICE);
        let msi = MsiCapability::new(layout, NEXT, sender, Arc::new(router)).unwrap();
        Self { msi, controller }
    }

    fn read<const N: usize>(&self, offset: u16) -> [u8; N] {
        let mut bytes = [0xa5; N];
        self.msi.read(offset, &mut bytes);
        bytes
    }
}

/// Layout of PCI Local Bus 3.0, figure 6-9: 64-bit address and per-vector masking.
#[test]
fn the_64_bit_msi_capability_matches_the_specified_layout() {
    let rig = Rig::new(WIDE);
    assert_eq!(rig.msi.length(), 24);
    assert_eq!(rig.read(0), [0x05, NEXT, 0x84, 0x01]);
    rig.msi.write(0, &[0xff; 24]);
    let all: [u8; 24] = rig.read(0);
    let control = [0x05, NEXT, 0xa5, 0x01];
    let (low, high) = ([0xfc, 0xff, 0xff, 0xff], [0xff; 4]);
    let (data, masks, pending) = ([0xff, 0xff, 0, 0], [0x0f, 0, 0, 0], [0; 4]);
    assert_eq!(all, [control, low, high, data, masks, pending].concat()[..]);
}

#[test]
fn the_32_bit_msi_capability_matches_the_specified_layout() {
    let rig = Rig::new(NARROW);
    assert_eq!(rig.msi.length(), 10);
    rig.msi.write(0, &[0xff; 10]);
    let all: [u8; 12] = rig.read(0);
    assert_eq!(all, [5, NEXT, 0x5b, 0, 0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xa5, 0xa5]);
}

#[test]
fn more_than_32_vectors_are_refused() {
    let inputs = Arc::new(Controller::default()).inputs();
    let router = Router::new(GsiSpace::default(), inputs).unwrap();
    let layout = MsiLayout { log2_vectors: 6, ..WIDE };
    let made = MsiCapability::new(layout, 0, Sender::Anonymous, Arc::new(router));
    assert_eq!(made.map(|_| ()), Err(BadVectorCount(6)));
}

#[derive(Clone, Debug)]
enum Step {
    Write { offset: u16, bytes: Vec<u8> },
    Signal(u16),
    Withdraw(u16),
    Sender(u32),
    BusMaster(BusMaster),
    Reset,
}

fn layouts() -> impl Strategy<Value = MsiLayout> {
    (0u8..=5, any::<bool>(), any::<bool>()).prop_map(
        |(log2_vectors, address_64, per_vector_masking)| MsiLayout {
            log2_vectors,
            address_64,
            per_vector_masking,
        },
    )
}

fn steps() -> impl Strategy<Value = Step> {
    let address = u32::try_from(Controller::ITS).unwrap().to_le_bytes().to_vec();
    let write = |offset, bytes| Step::Write { offset, bytes };
    let bytes = prop::collection::vec(prop_oneof![Just(0u8), 0u8..8, any::<u8>()], 0..9);
    prop_oneof![
        2 => Just(write(4, address)),
        1 => Just(write(8, vec![0; 4])),
        4 => (0u8..8, any::<bool>()).prop_map(move |(granted, enable)| {
            write(2, vec![granted << 4 | u8::from(enable)])
        }),
        6 => (0u16..30, bytes).prop_map(move |(offset, bytes)| write(offset, bytes)),
        1 => any::<u16>().prop_map(move |offset| write(offset, vec![0xff; 4])),
        6 => (0u16..34).prop_map(Step::Signal),
        2 => (0u16..4).prop_map(Step::Signal),
        1 => (0u16..4).prop_map(Step::Withdraw),
        1 => (8u32..10).prop_map(Step::Sender),
        2 => prop_oneof![3 => Just(BusMaster::Enabled), 1 => Just(BusMaster::Disabled)]
            .prop_map(Step::BusMaster),
        1 => Just(Step::Reset),
    ]
}

/// Model of the capability: registers as fields, and the vectors.
struct Model {
    layout: MsiLayout,
    enable: bool,
    granted: u8,
    address: u64,
    data: u16,
    masks: u32,
    pending: [bool; 32],
    device: DeviceId,
    bus_master: BusMaster,
}

impl Model {
    fn new(layout: MsiLayout, device: DeviceId) -> Self {
        let (enable, granted, address, data, masks, bus_master) = Default::default();
        let pending = [false; 32];
        Self { layout, enable, granted, address, data, masks, pending, device, bus_master }
    }

    /// Returns the bytes according to the figures of PCI Local Bus 3.0 §6.8.1.
    fn bytes(&self) -> Vec<u8> {
        let MsiLayout { log2_vectors, address_64, per_vector_masking } = self.layout;
        let control = u16::from(self.enable)
            | u16::from(log2_vectors) << 1
            | u16::from(self.granted) << 4
            | u16::from(address_64) << 7
            | u16::from(per_vector_masking) << 8;
        let address = self.address.to_le_bytes();
        let mut bytes = vec![5, NEXT];
        bytes.extend(control.to_le_bytes());
        bytes.extend(&address[..if address_64 { 8 } else { 4 }]);
        bytes.extend(self.data.to_le_bytes());
        if per_vector_masking {
            bytes.extend([0; 2]);
            bytes.extend(self.masks.to_le_bytes());
            let pending = (0..32).map(|bit| u32::from(self.pending[bit]) << bit);
            bytes.extend(pending.sum::<u32>().to_le_bytes());
        }
        bytes
    }

    /// Writes one byte, as the byte enables of the bus permit.
    fn write_byte(&mut self, offset: usize, byte: u8) {
        let wide = self.layout.address_64;
        let data = if wide { 12 } else { 8 };
        let place =
            |old: u64, index: usize| old & !(0xff << (index * 8)) | u64::from(byte) << (index * 8);
        match offset {
            2 => {
                self.enable = byte & 1 != 0;
                self.granted = byte >> 4 & 7;
            }
            4..8 => self.address = place(self.address, offset - 4) & !3,
            8..12 if wide => self.address = place(self.address, offset - 4),
            _ if offset == data || offset == data + 1 => {
                self.data = u16::try_from(place(self.data.into(), offset - data)).unwrap();
            }
            _ if self.layout.per_vector_masking && (data + 4..data + 8).contains(&offset) => {
                let vectors = (1u64 << (1u32 << self.layout.log2_vectors)) - 1;
                let masks = place(self.masks.into(), offset - data - 4) & vectors;
                self.masks = u32::try_from(masks).unwrap();
            }
            _ => {}
        }
    }

    fn is_open(&self, vector: usize) -> bool {
        let sends = self.enable && self.bus_master == BusMaster::Enabled;
        sends && vector < 1 << self.granted && self.masks >> vector & 1 == 0
    }

    fn message(&self, vector: usize) -> Option<Heard> {
        let low = (1u32 << self.granted) - 1;
        let data = u32::from(self.data) & !low | u32::try_from(vector).unwrap();
        match self.address {
            Controller::ITS => Some(Heard::Event(self.device, data)),
            Controller::FRAME => Some(Heard::Rung(data)),
            _ => None,
        }
    }

    /// Opens and closes vectors. Returns the messages that are sent as a result.
    fn settle(&mut self) -> Vec<Heard> {
        let sent: Vec<_> =
            (0..32).filter(|vector| self.is_open(*vector) && self.pending[*vector]).collect();
        for vector in &sent {
            self.pending[*vector] = false;
        }
        sent.into_iter().filter_map(|vector| self.message(vector)).collect()
    }

    fn signal(&mut self, vector: usize) -> (Vec<Heard>, Option<Signaled>) {
        let signaled = match self.enable {
            false => Signaled::Disabled,
            true if vector >= 1 << self.granted => Signaled::NoSuchVector,
            true if !self.is_open(vector) => {
                self.pending[vector] = true;
                Signaled::Held
            }
            true if self.message(vector).is_some() => Signaled::Sent(Delivery::Pending),
            true => Signaled::Sent(Delivery::NoDoorbell),
        };
        let heard = matches!(signaled, Signaled::Sent(_)).then(|| self.message(vector)).flatten();
        (heard.into_iter().collect(), Some(signaled))
    }

    fn step(&mut self, step: &Step) -> (Vec<Heard>, Option<Signaled>) {
        match step {
            Step::Write { offset, bytes } => {
                for (index, byte) in bytes.iter().enumerate() {
                    self.write_byte(usize::from(*offset) + index, *byte);
                }
                self.granted = self.granted.min(self.layout.log2_vectors);
            }
            Step::Signal(vector) => return self.signal(usize::from(*vector)),
            Step::Withdraw(vector) => self.pending[usize::from(*vector)] = false,
            Step::Sender(device) => self.device = DeviceId::new(*device),
            Step::BusMaster(bus_master) => self.bus_master = *bus_master,
            Step::Reset => {
                *self = Self { bus_master: self.bus_master, ..Self::new(self.layout, self.device) };
            }
        }
        (self.settle(), None)
    }
}

fn act(rig: &Rig, step: &Step) -> Option<Signaled> {
    match step {
        Step::Write { offset, bytes } => rig.msi.write(*offset, bytes),
        Step::Signal(vector) => return Some(rig.msi.signal(*vector)),
        Step::Withdraw(vector) => rig.msi.withdraw(*vector),
        Step::Sender(device) => rig.msi.set_sender(Sender::Device(DeviceId::new(*device))),
        Step::BusMaster(bus_master) => rig.msi.set_bus_master(*bus_master),
        Step::Reset => rig.msi.reset(),
    }
    None
}

proptest! {
    #[test]
    fn msi_capability_matches_its_model(
        layout in layouts(),
        steps in prop::collection::vec(steps(), 0..60),
        window in (0u16..28, 0usize..12),
    ) {
        let rig = Rig::new(layout);
        let mut model = Model::new(layout, DEVICE);
        for step in steps {
            let (heard, signaled) = model.step(&step);
            prop_assert_eq!(act(&rig, &step), signaled, "by {:?}", step);
            prop_assert_eq!(rig.controller.heard(), heard, "after {:?}", step);
            let bytes = model.bytes();
            prop_assert_eq!(&rig.read::<24>(0)[..bytes.len()], &bytes[..]);
            let (offset, length) = window;
            let mut part = vec![0xa5; length];
            rig.msi.read(offset, &mut part);
            let expected = bytes.iter().copied().chain([0xa5; 40]);
            prop_assert!(part.iter().copied().eq(expected.skip(offset.into()).take(length)));
            prop_assert_eq!(rig.msi.is_enabled(), model.enable);
        }
    }
}
