//! Trials of this crate's messages with KVM's local APICs.

use crate::bench::Bench;
use crate::machine::Machine;
use core::num::NonZeroU16;
use doorbell_test_support::kvm::{Failure, Outcome, Trial, same};
use msi_types::{
    Attachment, BlockRequest, Cpu, Fit, HwIrqBlock, Move, MoveOutcome, MsiError, MsiMessage,
    MsiParent, RequesterId, Rewrite,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use x86_irq::message::{ApicMessage, DestinationFormat};
use x86_irq::remapping::{
    ApicMode, EntryCache, InvalidationError, RemapFault, RemapMemory, RemapTable, RemapTableConfig,
    RemappedVectors, RemappedVectorsConfig, TableSize,
};
use x86_irq::{ApicVector, CpuVector};

const CPU0: Cpu = Cpu::new(0);
const CPU1: Cpu = Cpu::new(1);
const NIC: RequesterId = RequesterId::pci(1, 0, 0);
const STRANGER: RequesterId = RequesterId::pci(2, 0, 0);

pub(crate) const ALL: &[Trial] = &[
    ("every_vector_arrives_once_at_the_cpu_that_its_message_names", every_vector),
    ("an_apic_id_beyond_8_bits_is_reached_by_15_and_32_bit_destinations", wide_ids),
    ("each_message_arrives_once_while_its_interrupt_moves_to_and_fro", moves_of_masked_endpoints),
    ("an_endpoint_that_changes_its_low_word_alone_moves_without_loss", moves_of_low_word_endpoints),
    ("a_device_that_fires_while_its_interrupt_moves_loses_nothing", moves_under_fire),
    ("a_message_sent_before_the_rewrite_arrives_at_the_old_cpu_and_counts", straggler),
    ("what_arrives_while_masked_is_sent_again_by_unmasking", masked),
    ("remapped_messages_arrive_where_their_entries_say_and_a_strangers_do_not", remapped),
];

fn every_vector() -> Outcome {
    let machine = Machine::start(&[0, 1])?;
    let mut expected = vec![vec![0; 256]; 2];
    for cpu in [CPU0, CPU1] {
        for vector in (0x20..0xfe).filter_map(ApicVector::new) {
            let message = ApicMessage::fixed(machine.id(cpu.index()), vector);
            machine.signal(message.encode(DestinationFormat::Xapic)?)?;
            machine.wait_for(CpuVector { cpu, vector }, 1)?;
            expected[cpu.index()][usize::from(vector.get())] = 1;
        }
    }
    same(&vec![machine.counts(0), machine.counts(1)], &expected)
}

fn wide_ids() -> Outcome {
    let machine = Machine::start(&[0, 300])?;
    let vector = ApicVector::new(0x41).ok_or("illegal")?;
    let place = CpuVector { cpu: CPU1, vector };
    let message = ApicMessage::fixed(machine.id(1), vector);
    machine.signal(message.encode(DestinationFormat::Kvm32)?)?;
    machine.wait_for(place, 1)?;
    // A guest writes 15 bits; its monitor passes 32 to KVM.
    let stored = message.encode(DestinationFormat::Extended15)?;
    let read = ApicMessage::decode(stored, DestinationFormat::Extended15)?;
    machine.signal(read.encode(DestinationFormat::Kvm32)?)?;
    machine.wait_for(place, 2)?;
    // 300 truncated to 8 bits is 44.
    same(&[machine.counts(0).iter().sum::<u32>()], &[0])
}

/// A device with one vector behind a parent.
struct Device<'a> {
    parent: &'a dyn MsiParent,
    attachment: Attachment,
    block: HwIrqBlock,
    message: MsiMessage,
}

impl<'a> Device<'a> {
    fn new(parent: &'a dyn MsiParent, rewrite: Rewrite) -> Result<Self, Failure> {
        let attachment = parent.attach(NIC, 1)?;
        let request =
            BlockRequest::new(NonZeroU16::MIN, Fit::new(rewrite).with_data_bits(16), CPU0);
        let block = parent.allocate(&attachment, &request)?;
        let message = parent.compose(&block, 0)?;
        Ok(Self { parent, attachment, block, message })
    }

    /// Rewrites the endpoint's message, between the two phases of a move.
    fn rewrite(&mut self, moved: &Move) {
        self.message = moved.message.unwrap_or(self.message);
    }

    fn relocate(&mut self, to: Cpu) -> Outcome {
        let moved = self.parent.begin_move(&self.block, 0, to)?;
        self.rewrite(&moved);
        Ok(self.parent.end_move(moved, MoveOutcome::Written)?)
    }

    fn free(self) {
        self.parent.free(&self.attachment, self.block);
        self.parent.detach(self.attachment);
    }
}

fn moves_of_masked_endpoints() -> Outcome {
    moves(Rewrite::Masked)
}

fn moves_of_low_word_endpoints() -> Outcome {
    moves(Rewrite::LowWordOnly)
}

fn moves(rewrite: Rewrite) -> Outcome {
    const MOVES: u32 = 500;
    let mut bench = Bench::start(&[0, 1], DestinationFormat::Xapic)?;
    let domain = bench.domain.clone();
    let free = [CPU0, CPU1].map(|cpu| domain.available_on(cpu));
    let mut device = Device::new(&*domain, rewrite)?;
    let vector = device.block.first();
    for turn in 0..MOVES {
        let data = device.message.data;
        device.relocate([CPU1, CPU0][turn as usize % 2])?;
        if rewrite == Rewrite::LowWordOnly {
            same(&data, &device.message.data)?;
        }
        bench.deliver(vector, device.message)?;
        bench.clean_up()?;
    }
    same(&bench.delivered(vector), &MOVES)?;
    device.free();
    [CPU0, CPU1].into_iter().try_for_each(|cpu| {
        (domain.clean_up(cpu) == x86_irq::Cleanup::Done).then_some(()).ok_or("not clean")
    })?;
    same(&[CPU0, CPU1].map(|cpu| domain.available_on(cpu)), &free)
}

/// One thread moves the interrupt while the other sends and waits for each message. No message may
/// be lost, duplicated or misdelivered.
fn moves_under_fire() -> Outcome {
    const MOVES: usize = 300;
    let mut bench = Bench::start(&[0, 1], DestinationFormat::Xapic)?;
    let domain = bench.domain.clone();
    let mut device = Device::new(&*domain, Rewrite::Atomic64)?;
    let vector = device.block.first();
    // The device's message, which is replaced atomically at any time.
    let stored = Mutex::new(device.message);
    let read = || *stored.lock().expect("no thread panicked");
    let sent = std::thread::scope(|scope| {
        let mover = scope.spawn(|| {
            let mut done = 0;
            while done < MOVES {
                match domain.begin_move(&device.block, 0, [CPU1, CPU0][done % 2]) {
                    Ok(moved) => {
                        device.rewrite(&moved);
                        *stored.lock().expect("no thread panicked") = device.message;
                        domain.end_move(moved, MoveOutcome::Written)?;
                        done += 1;
                    }
                    // Too many former vectors wait for a clean-up, which the other thread performs.
                    Err(MsiError::NotReachable(..)) => std::thread::yield_now(),
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        let mut sent = 0;
        while !mover.is_finished() {
            bench.deliver(vector, read())?;
            bench.clean_up()?;
            sent += 1;
        }
        mover.join().map_err(|_| "the mover panicked")??;
        Ok::<u32, Failure>(sent)
    })?;
    bench.deliver(vector, read())?;
    same(&bench.delivered(vector), &(sent + 1))
}

fn straggler() -> Outcome {
    let mut bench = Bench::start(&[0, 1], DestinationFormat::Kvm32)?;
    let domain = bench.domain.clone();
    let mut device = Device::new(&*domain, Rewrite::Masked)?;
    let vector = device.block.first();
    let old = (device.message, domain.cpu_vector(vector).ok_or("no place")?);
    let moved = domain.begin_move(&device.block, 0, CPU1)?;
    device.rewrite(&moved);
    // This message was sent before the endpoint was rewritten, and is still in flight.
    bench.deliver(vector, old.0)?;
    domain.end_move(moved, MoveOutcome::Written)?;
    bench.deliver(vector, old.0)?;
    bench.deliver(vector, device.message)?;
    let new = domain.cpu_vector(vector).ok_or("no place")?;
    same(&[bench.machine.count(old.1), bench.machine.count(new)], &[2, 1])?;
    // The old vector is now free for other interrupts.
    bench.clean_up()?;
    same(&domain.arrive(CPU0, old.1.vector), &x86_irq::Arrival::Unknown)
}

fn masked() -> Outcome {
    let mut bench = Bench::start(&[0, 1], DestinationFormat::Kvm32)?;
    let domain = bench.domain.clone();
    let device = Device::new(&*domain, Rewrite::Never)?;
    let vector = device.block.first();
    domain.mask(vector);
    for held in 1..=3 {
        bench.machine.signal(device.message)?;
        bench.wait(|bench| bench.held() == held)?;
    }
    same(&(bench.delivered(vector), domain.is_pending(vector)), &(0, Some(true)))?;
    domain.unmask(vector);
    bench.wait(|bench| bench.delivered(vector) == 1)?;
    same(&bench.resent(), &1)
}

struct Ram(Vec<AtomicU64>);

impl RemapMemory for Ram {
    fn read(&self, word: u32) -> u64 {
        self.0[word as usize].load(Ordering::Acquire)
    }

    fn write(&self, word: u32, value: u64) {
        self.0[word as usize].store(value, Ordering::Release);
    }
}

/// A unit that caches nothing.
struct NoCache;

impl EntryCache for NoCache {
    fn invalidate(&self, _: u16, _: u8) -> Result<(), InvalidationError> {
        Ok(())
    }
}

/// Translates the message, in place of the unit that the machine does not have.
fn through(
    table: &RemapTable<Ram>,
    from: RequesterId,
    message: MsiMessage,
) -> Result<MsiMessage, Failure> {
    let (destination, delivery) =
        table.translate(from, message)?.physical().ok_or("not physical")?;
    let x86_irq::message::DeliveryMode::Fixed(vector) = delivery else {
        return Err("not fixed".into());
    };
    Ok(ApicMessage::fixed(destination, vector).encode(DestinationFormat::Kvm32)?)
}

fn remapped() -> Outcome {
    let mut bench = Bench::start(&[0, 300], DestinationFormat::Xapic)?;
    let size = TableSize::from_log2(8).ok_or("size")?;
    let config = RemapTableConfig::new(size, ApicMode::X2apic);
    let words = (0..size.entries() * 2).map(|_| AtomicU64::new(0)).collect();
    let parent = RemappedVectors::new(RemappedVectorsConfig::new(
        bench.domain.clone(),
        RemapTable::new(config, Ram(words)),
        Arc::new(NoCache),
        0xfed9_0000,
    ))?;
    let mut device = Device::new(&parent, Rewrite::Never)?;
    let (vector, stored) = (device.block.first(), device.message);
    for turn in 1..=100 {
        bench.deliver(vector, through(parent.table(), NIC, stored)?)?;
        bench.clean_up()?;
        device.relocate([CPU0, CPU1][turn % 2])?;
        same(&device.message, &stored)?;
    }
    same(&bench.delivered(vector), &100)?;
    let refused = parent.table().translate(STRANGER, stored);
    let fault = RemapFault::WrongSource { requester: STRANGER, index: 0 };
    same(&refused, &Err(fault))?;
    let forged = ApicMessage::fixed(bench.machine.id(0), ApicVector::MIN)
        .encode(DestinationFormat::Xapic)?;
    same(&parent.table().translate(NIC, forged), &Err(RemapFault::CompatibilityBlocked))
}
