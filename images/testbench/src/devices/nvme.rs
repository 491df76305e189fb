//! NVM Express, with a queue pair for each vector. Commands complete by interrupt.

use crate::driver::Driver;
use crate::report::{Outcome, Verdict, check};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use image_rt::cpu;
use image_rt::lock::IrqMutex;
use image_rt::pci::{Bar, Function};
use irq_domain::pci::TableMemory;

const CC: u64 = 0x14;
const CSTS: u64 = 0x1c;
const AQA: u64 = 0x24;
const ASQ: u64 = 0x28;
const ACQ: u64 = 0x30;
const DOORBELLS: u64 = 0x1000;
/// The controller is enabled, with queue entries of 64 and 16 bytes.
const CC_ENABLED: u32 = 1 | 6 << 16 | 4 << 20;
const DEPTH: u16 = 16;
/// Number of queues: the admin queue, and one I/O queue for each of at most eight CPUs.
pub(crate) const QUEUES: u16 = 9;

const CREATE_SQ: u32 = 0x01;
const CREATE_CQ: u32 = 0x05;
const READ: u32 = 0x02;
const GET_FEATURES: u32 = 0x0a;
const NUMBER_OF_QUEUES: u32 = 0x07;

/// An NVMe controller.
pub(crate) struct Nvme {
    bar: Bar,
    stride: u64,
    queues: Vec<Queue>,
}

#[repr(C, align(4096))]
struct Page([u8; 4096]);

/// A submission and a completion queue, with a buffer for reads.
struct Queue {
    id: u16,
    rings: IrqMutex<QueuePair>,
    /// Number of completed commands, and number of failed commands among them.
    completed: AtomicU64,
    failed: AtomicU64,
}

struct QueuePair {
    submissions: Box<Page>,
    completions: Box<Page>,
    data: Box<Page>,
    tail: u16,
    head: u16,
    phase: u16,
}

fn page() -> Box<Page> {
    Box::new(Page([0; 4096]))
}

fn address(page: &Page) -> u64 {
    (&raw const *page).expose_provenance() as u64
}

impl Queue {
    fn new(id: u16) -> Self {
        let rings = QueuePair {
            submissions: page(),
            completions: page(),
            data: page(),
            tail: 0,
            head: 0,
            phase: 1,
        };
        Self {
            id,
            rings: IrqMutex::new(rings),
            completed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }
}

/// The part of a command that varies.
#[derive(Clone, Copy)]
struct Command {
    opcode: u32,
    namespace: u32,
    data: u64,
    words: [u32; 3],
}

impl Nvme {
    pub(crate) fn new(function: &Function) -> Self {
        let bar = function.bar(0);
        let stride = 4 << (bar.read64(0) >> 32 & 0xf);
        Self { bar, stride, queues: (0..QUEUES).map(Queue::new).collect() }
    }

    fn submit(&self, queue: &Queue, command: Command) {
        let tail = queue.rings.with(|rings| {
            let slot = usize::from(rings.tail) * 64;
            let entry = &mut rings.submissions.0[slot..slot + 64];
            entry.fill(0);
            let id = u32::from(rings.tail) << 16;
            entry[0..4].copy_from_slice(&(command.opcode | id).to_le_bytes());
            entry[4..8].copy_from_slice(&command.namespace.to_le_bytes());
            entry[24..32].copy_from_slice(&command.data.to_le_bytes());
            for (bytes, word) in entry[40..52].chunks_exact_mut(4).zip(command.words) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            rings.tail = (rings.tail + 1) % DEPTH;
            rings.tail
        });
        cpu::publish_stores();
        self.bar.write32(DOORBELLS + 2 * u64::from(queue.id) * self.stride, tail.into());
    }

    /// Handles the completed commands of a queue.
    fn complete(&self, queue: &Queue) {
        queue.rings.with(|rings| {
            let before = rings.head;
            loop {
                let status = usize::from(rings.head) * 16 + 14;
                // SAFETY: the entry is in the page and aligned; the device writes to it.
                let status = unsafe {
                    (&raw const *rings.completions).cast::<u16>().byte_add(status).read_volatile()
                };
                if status & 1 != rings.phase {
                    break;
                }
                queue.failed.fetch_add(u64::from(status >> 1 != 0), Ordering::Relaxed);
                queue.completed.fetch_add(1, Ordering::Release);
                rings.head = (rings.head + 1) % DEPTH;
                rings.phase ^= u16::from(rings.head == 0);
            }
            if rings.head != before {
                let doorbell = DOORBELLS + (2 * u64::from(queue.id) + 1) * self.stride;
                self.bar.write32(doorbell, rings.head.into());
            }
        });
    }

    /// Submits a command, and waits until it completes by interrupt.
    fn run(&self, queue: &Queue, command: Command) -> Outcome {
        let before =
            (queue.completed.load(Ordering::Acquire), queue.failed.load(Ordering::Relaxed));
        self.submit(queue, command);
        let done = cpu::wait_until(2000, || queue.completed.load(Ordering::Acquire) > before.0);
        check!(done, "no interrupt completed command {:#x} on queue {}", command.opcode, queue.id);
        let failed = queue.failed.load(Ordering::Relaxed) - before.1;
        check!(failed == 0, "command {:#x} on queue {} failed", command.opcode, queue.id);
        Ok(())
    }

    fn create(&self, queue: &Queue) -> Outcome {
        let (submissions, completions) =
            queue.rings.with(|rings| (address(&rings.submissions), address(&rings.completions)));
        let size = u32::from(DEPTH - 1) << 16 | u32::from(queue.id);
        let vector = u32::from(queue.id) << 16;
        let create =
            |opcode, data, flags| Command { opcode, namespace: 0, data, words: [size, flags, 0] };
        // The queue is contiguous, and uses interrupts with its own vector.
        self.run(&self.queues[0], create(CREATE_CQ, completions, vector | 3))?;
        self.run(&self.queues[0], create(CREATE_SQ, submissions, vector | 1))
    }
}

impl Driver for Nvme {
    fn vectors(&self) -> u16 {
        QUEUES
    }

    fn posts(&self) -> bool {
        false
    }

    fn start(&self) -> Outcome {
        self.bar.write32(CC, 0);
        check!(
            cpu::wait_until(2000, || self.bar.read32(CSTS) & 1 == 0),
            "the controller does not stop"
        );
        self.bar.write32(AQA, u32::from(DEPTH - 1) << 16 | u32::from(DEPTH - 1));
        let (submissions, completions) = self.queues[0]
            .rings
            .with(|rings| (address(&rings.submissions), address(&rings.completions)));
        self.bar.write64(ASQ, submissions);
        self.bar.write64(ACQ, completions);
        self.bar.write32(CC, CC_ENABLED);
        check!(
            cpu::wait_until(2000, || self.bar.read32(CSTS) & 1 == 1),
            "the controller does not start"
        );
        self.queues[1..].iter().try_for_each(|queue| self.create(queue))
    }

    /// On queue 0, queries the controller. On queue *n*, reads sector *n*. Each sector contains its
    /// own number.
    fn fire(&self, slot: u16) -> Result<bool, Verdict> {
        let queue = &self.queues[usize::from(slot)];
        if slot == 0 {
            let words = [NUMBER_OF_QUEUES, 0, 0];
            self.run(queue, Command { opcode: GET_FEATURES, namespace: 0, data: 0, words })?;
            return Ok(true);
        }
        let data = queue.rings.with(|rings| {
            rings.data.0.fill(0xff);
            address(&rings.data)
        });
        self.run(queue, Command { opcode: READ, namespace: 1, data, words: [slot.into(), 0, 0] })?;
        let number = queue.rings.with(|rings| {
            // SAFETY: the data is in the page and aligned; the device wrote it before its
            // interrupt.
            unsafe { (&raw const *rings.data).cast::<u64>().read_volatile() }
        });
        check!(number == slot.into(), "sector {slot} contains number {number:#x}");
        Ok(true)
    }

    fn handler_address(&self) -> Option<usize> {
        let handle: fn(&Self, u16) = <Self as Driver>::handle;
        Some((handle as *const ()).addr())
    }

    fn handle(&self, slot: u16) {
        self.complete(&self.queues[usize::from(slot)]);
    }
}

impl Drop for Nvme {
    /// Stops the controller. Until the controller is disabled, it uses the queues' memory.
    fn drop(&mut self) {
        self.bar.write32(CC, 0);
        cpu::wait_until(2000, || self.bar.read32(CSTS) & 1 == 0);
    }
}
