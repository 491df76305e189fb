//! Random tests with devices, moves, masking, failures and CPU hotplug. No message may be lost. No
//! interrupt may be signaled without a message, while masked, or at a CPU that it was never sent
//! to.

use super::endpoint::{Endpoint, StoreKind, attach};
use super::resends::RecordedResends;
use crate::fake::Board;
use gic_driver::direct_lpi::{DirectLpi, ResendReason};
use msi_types::{Cpu, MsiParent, Pending};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const CPUS: u32 = 6;

#[derive(Clone, Debug)]
enum Op {
    Add {
        kind: StoreKind,
        log2: u8,
        cpu: u32,
    },
    Remove {
        device: usize,
    },
    Fire {
        device: usize,
        index: u16,
    },
    Move {
        device: usize,
        index: u16,
        to: u32,
    },
    FailToMove {
        device: usize,
        to: u32,
    },
    Mask {
        device: usize,
        index: u16,
    },
    Unmask {
        device: usize,
        index: u16,
    },
    Retrigger {
        device: usize,
        index: u16,
    },
    /// Makes a CPU take one interrupt.
    Take {
        cpu: u32,
    },
    /// Makes a redistributor reload a configuration without a request from software.
    Refill {
        cpu: u32,
        device: usize,
    },
    Leave {
        cpu: u32,
    },
    Come {
        cpu: u32,
    },
    /// Makes a redistributor lose power while it sleeps.
    LosePower {
        cpu: u32,
    },
    Stick {
        cpu: u32,
    },
    Unstick,
}

fn op() -> impl Strategy<Value = Op> {
    let kind = prop_oneof![
        Just(StoreKind::Masked),
        Just(StoreKind::Atomic64),
        Just(StoreKind::Words),
        Just(StoreKind::Fixed)
    ];
    let device = any::<usize>();
    let index = 0u16..8;
    let cpu = 0..CPUS;
    prop_oneof![
        3 => (kind, 0u8..4, cpu.clone()).prop_map(|(kind, log2, cpu)| Op::Add { kind, log2, cpu }),
        1 => device.prop_map(|device| Op::Remove { device }),
        8 => (device, index.clone()).prop_map(|(device, index)| Op::Fire { device, index }),
        6 => (device, index.clone(), cpu.clone()).prop_map(|(device, index, to)| Op::Move {
            device,
            index,
            to,
        }),
        1 => (device, cpu.clone()).prop_map(|(device, to)| Op::FailToMove { device, to }),
        2 => (device, index.clone()).prop_map(|(device, index)| Op::Mask { device, index }),
        3 => (device, index.clone()).prop_map(|(device, index)| Op::Unmask { device, index }),
        1 => (device, index).prop_map(|(device, index)| Op::Retrigger { device, index }),
        4 => cpu.clone().prop_map(|cpu| Op::Take { cpu }),
        1 => (cpu.clone(), device).prop_map(|(cpu, device)| Op::Refill { cpu, device }),
        1 => cpu.clone().prop_map(|cpu| Op::Leave { cpu }),
        2 => cpu.clone().prop_map(|cpu| Op::Come { cpu }),
        1 => cpu.clone().prop_map(|cpu| Op::LosePower { cpu }),
        1 => cpu.prop_map(|cpu| Op::Stick { cpu }),
        1 => Just(Op::Unstick),
    ]
}

/// Expected state of a vector.
#[derive(Debug, Default)]
struct HwIrq {
    /// Number of messages, including messages sent by software.
    sent: u64,
    /// Value of `sent` when the interrupt was last taken.
    seen: u64,
    runs: u64,
    masked: bool,
    /// Number of resends that may cause a spurious handler run.
    unknowable: u64,
    /// CPUs at which the LPI may be pending, i.e. to which it was sent or resent since they last
    /// took it.
    places: Vec<u32>,
}

/// Properties of a simulated redistributor.
#[derive(Clone, Copy, Debug)]
struct Hardware {
    ces: bool,
    /// `true` if table accesses are coherent with caches. Otherwise, the kernel can't read the
    /// redistributor's pending table.
    coherent: bool,
}

fn hardware() -> impl Strategy<Value = Hardware> {
    any::<(bool, bool)>().prop_map(|(ces, coherent)| Hardware { ces, coherent })
}

struct RandomMachine {
    board: Board,
    direct: DirectLpi<Board>,
    devices: Vec<(Endpoint, Vec<u32>)>,
    vectors: BTreeMap<u32, HwIrq>,
    on: [bool; CPUS as usize],
    resends: Arc<RecordedResends>,
}

impl RandomMachine {
    fn new(hardware: [Hardware; CPUS as usize]) -> Self {
        // The last CPU's redistributor is above 4 GiB.
        let board = Board::new(CPUS - 1, 1).with_lpis(6);
        for (cpu, Hardware { ces, coherent }) in (0..CPUS).zip(hardware) {
            board.world().rd(cpu).can_disable = ces;
            board.world().rd(cpu).disables = ces;
            board.world().rd(cpu).coherent = coherent;
        }
        let resends = Arc::new(RecordedResends::default());
        let direct = board.direct_lpi().unwrap().with_observer(Arc::clone(&resends) as _);
        let (devices, vectors) = (Vec::new(), BTreeMap::new());
        Self { board, direct, devices, vectors, on: [true; CPUS as usize], resends }
    }

    fn pick(&self, device: usize) -> Option<usize> {
        device.checked_rem(self.devices.len())
    }

    fn index(&self, device: usize, index: u16) -> u16 {
        index % self.devices[device].0.block.count().get()
    }

    fn target(&self, device: usize) -> u32 {
        let address = self.devices[device].0.message().address;
        let bases = self.board.world().redistributors.iter().map(|rd| rd.base).collect::<Vec<_>>();
        u32::try_from(bases.iter().position(|base| base + 0x40 == address).unwrap()).unwrap()
    }

    fn note_sent(&mut self, lpi: u32, at: u32) {
        let hwirq = self.vectors.get_mut(&lpi).unwrap();
        hwirq.sent += 1;
        hwirq.places.push(at);
    }

    /// Records that resent LPIs may be pending at the reported CPUs.
    fn note_resends(&mut self) {
        for resend in self.resends.take() {
            let hwirq =
                self.vectors.get_mut(&resend.hwirq.get()).expect("a resent LPI has an owner");
            hwirq.places.push(resend.cpu.get());
            hwirq.unknowable += u64::from(resend.reason == ResendReason::Unknowable);
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Add { kind, log2, cpu } => self.add(kind, 1 << log2, cpu),
            Op::Remove { device } => self.remove(device),
            Op::Take { cpu } => _ = self.take(cpu),
            Op::Leave { cpu } => self.leave(cpu),
            Op::Come { cpu } => self.come(cpu),
            Op::LosePower { cpu } if !self.on[cpu as usize] => {
                self.board.world().rd(cpu).lose_power();
            }
            Op::LosePower { .. } => {}
            Op::Stick { cpu } => self.board.world().rd(cpu).stuck_invalidation = true,
            Op::Unstick => self.unstick(),
            Op::Fire { device, .. }
            | Op::Move { device, .. }
            | Op::FailToMove { device, .. }
            | Op::Mask { device, .. }
            | Op::Unmask { device, .. }
            | Op::Retrigger { device, .. }
            | Op::Refill { device, .. } => {
                if let Some(device) = self.pick(device) {
                    self.run_at(device, op);
                }
            }
        }
    }

    fn run_at(&mut self, device: usize, op: &Op) {
        match *op {
            Op::Fire { index, .. } => {
                let index = self.index(device, index);
                let (lpi, at) = (self.devices[device].0.lpi(index), self.target(device));
                self.devices[device].0.fire(&self.board, index);
                self.note_sent(lpi, at);
            }
            Op::Retrigger { index, .. } => {
                let hwirq = self.devices[device].0.block.hwirq(self.index(device, index)).unwrap();
                self.direct.set_pending(hwirq, Pending::Set);
                // The driver reports the CPU to which it resends the LPI.
                self.vectors.get_mut(&hwirq.get()).unwrap().sent += 1;
            }
            Op::Move { index, to, .. } => {
                let index = self.index(device, index);
                // If the driver refuses the move, later checks verify that the vector's state has
                // not changed.
                _ = self.devices[device].0.relocate(&self.board, &self.direct, index, to, &|| ());
            }
            Op::FailToMove { to, .. } => {
                _ = self.devices[device].0.fail_to_relocate(&self.board, &self.direct, to, &|| ());
            }
            Op::Mask { index, .. } | Op::Unmask { index, .. } => {
                self.unstick();
                let hwirq = self.devices[device].0.block.hwirq(self.index(device, index)).unwrap();
                let mask = matches!(op, Op::Mask { .. });
                if mask {
                    self.direct.mask(hwirq);
                } else {
                    self.direct.unmask(hwirq);
                }
                self.vectors.get_mut(&hwirq.get()).unwrap().masked = mask;
            }
            Op::Refill { cpu, .. } => {
                let lpi = self.devices[device].0.lpi(0);
                let world = &mut *self.board.world();
                world.redistributors[cpu as usize].refill(&mut world.memory, lpi);
            }
            _ => unreachable!(),
        }
    }

    fn add(&mut self, kind: StoreKind, count: u16, cpu: u32) {
        let Ok(device) = Endpoint::new(&self.direct, kind, count, cpu) else { return };
        let lpis: Vec<_> = (0..count).map(|index| device.lpi(index)).collect();
        for lpi in &lpis {
            let new = self.vectors.insert(*lpi, HwIrq::default());
            assert!(new.is_none(), "{lpi} was allocated twice");
            assert_eq!(
                self.board.world().pending_at(*lpi),
                [0u32; 0],
                "{lpi} is pending before a message was sent"
            );
        }
        self.devices.push((device, lpis));
    }

    fn remove(&mut self, device: usize) {
        self.unstick();
        let Some(device) = self.pick(device) else { return };
        let (device, lpis) = self.devices.swap_remove(device);
        self.direct.free(&attach(&self.direct), device.block);
        self.note_resends();
        for lpi in lpis {
            self.vectors.remove(&lpi);
        }
    }

    fn take(&mut self, cpu: u32) -> bool {
        let interface = self.board.interface(cpu);
        let Some(interrupt) = interface.acknowledge() else { return false };
        let lpi = interrupt.intid().get();
        interface.end(interrupt);
        self.note_resends();
        assert!(self.on[cpu as usize], "CPU {cpu} is off");
        let hwirq = self.vectors.get_mut(&lpi).unwrap_or_else(|| panic!("{lpi} has no owner"));
        assert!(!hwirq.masked, "{lpi} is masked but was signaled to CPU {cpu}");
        assert!(
            hwirq.places.contains(&cpu),
            "{lpi} was not sent to CPU {cpu} since it was last taken there"
        );
        hwirq.places.retain(|place| *place != cpu);
        hwirq.seen = hwirq.sent;
        hwirq.runs += 1;
        true
    }

    fn leave(&mut self, cpu: u32) {
        let others_on = self.on.iter().filter(|on| **on).count() > 1;
        if !self.on[cpu as usize] || !others_on {
            return;
        }
        self.unstick();
        let heir = (0..CPUS).find(|heir| *heir != cpu && self.on[*heir as usize]).unwrap();
        for device in 0..self.devices.len() {
            if self.target(device) == cpu {
                self.run_at(device, &Op::Move { device, index: 0, to: heir });
            }
        }
        let left = self.direct.cpu_off(Cpu::new(cpu), |_| ()).unwrap();
        self.direct.gic().cpu_off(Cpu::new(cpu), &self.board.registers(Cpu::new(cpu))).unwrap();
        self.on[cpu as usize] = false;
        let stays = (0..self.devices.len()).filter(|device| self.target(*device) == cpu);
        let stays: usize = stays.map(|device| self.devices[device].1.len()).sum();
        assert_eq!(left.stranded as usize, stays);
    }

    fn come(&mut self, cpu: u32) {
        if self.on[cpu as usize] {
            return;
        }
        self.unstick();
        let id = Cpu::new(cpu);
        let attached = self.direct.gic().cpu_on(id, &self.board.registers(id)).unwrap().unwrap();
        self.direct.cpu_on(id, attached.pending).unwrap();
        self.on[cpu as usize] = true;
    }

    fn unstick(&self) {
        (0..CPUS).for_each(|cpu| self.board.world().rd(cpu).stuck_invalidation = false);
    }

    /// Turns on all CPUs, unmasks all vectors, takes all interrupts, and checks that every message
    /// was seen.
    fn finish(mut self) {
        self.unstick();
        (0..CPUS).for_each(|cpu| self.come(cpu));
        for (lpi, hwirq) in &mut self.vectors {
            self.direct.unmask((*lpi).into());
            hwirq.masked = false;
        }
        (0..CPUS).for_each(|cpu| while self.take(cpu) {});
        for (lpi, hwirq) in &self.vectors {
            assert_eq!(hwirq.seen, hwirq.sent, "{lpi} lost a message");
            assert!(hwirq.runs <= hwirq.sent + hwirq.unknowable, "{lpi}: {hwirq:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_lose_and_misdeliver_no_message(
        hardware in prop::array::uniform6(hardware()),
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let mut machine = RandomMachine::new(hardware);
        for op in &ops {
            machine.run(op);
        }
        machine.finish();
    }
}
