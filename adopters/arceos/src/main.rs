//! A program on ArceOS. Reads a file from an NVMe disk and writes the file's checksum to the disk,
//! while it moves the disk's vectors between all CPUs. Then sends a message to each CPU, and
//! allocates and frees vectors of another device. With the word `watched` on ArceOS's command line,
//! it instead receives interrupts whose instructions are logged. The same program runs on ArceOS's
//! own interrupt drivers and on `gic-driver`.
#![no_std]
#![no_main]

mod cpu_message;

extern crate alloc;
// Links ArceOS's runtime, and its disk driver.
extern crate ax_driver;
extern crate ax_runtime;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::error::Error;
use core::time::Duration;

use ax_fs_ng::fops::{File, OpenOptions};
use ax_log::ax_println as println;
use irq_framework::{CpuId, HwIrq, IrqAffinity, IrqError, IrqId};
use rdif_msi::{Msi, MsiDeviceId, MsiEventId, MsiRequest, MsiVector, MsiVectorIndex};

use crate::cpu_message::CpuMessage;

/// Vectors that the disk uses: the admin queue's, and one for each I/O queue.
const VECTORS: u32 = 2;
/// Number of bytes read between two moves. Reading them takes more than one disk request.
const CHUNK: usize = 16 * 1024;
/// Requester ID of the device whose vectors are allocated and freed. It sends no messages.
const OTHER_DEVICE: u32 = 0x10;
/// Number of times that a vector is allocated and freed.
const ROUNDS: u32 = 10_000;
/// Number of logged interrupts.
const WATCHED: usize = 16;

#[unsafe(no_mangle)]
fn main() {
    let watched = ax_hal::boot::bootargs().is_some_and(|words| words.contains("watched"));
    match if watched { be_watched() } else { run() } {
        Ok(()) => println!("adopter: end"),
        Err(error) => println!("adopter: error: {error}"),
    }
    // Let the console's task print before ArceOS turns the machine off.
    ax_hal::time::busy_wait(Duration::from_millis(500));
}

fn run() -> Result<(), Box<dyn Error>> {
    let cpus = ax_hal::cpu_num();
    println!("adopter: cpus {cpus}");
    let first = first_vector().ok_or("the disk has no messages")?;
    let mut moves = Moves::default();
    let checksum = read(cpus, first, &mut moves)?;
    println!("adopter: read {checksum:016x}");
    write(cpus, first, checksum, &mut moves)?;
    println!("adopter: written moves {} refused {}", moves.done, moves.refused);
    println!("adopter: messages to each CPU taken by {:?}", send_to_each(cpus)?);
    let busy = with_msi(|_| somehal::irq::irq_set_enable(vector_of(first).irq, true));
    println!("adopter: unmasked during an allocation {busy:?}");
    let (rounds, last) = allocate_and_free();
    println!("adopter: rounds {rounds} last {last:?}");
    Ok(())
}

/// Numbers of vector moves, including moves to the current CPU.
#[derive(Default)]
struct Moves {
    done: u32,
    /// Moves that the driver refused because they would change the device's message.
    refused: u32,
}

/// Reads the file, and moves the disk's vectors to the next CPU after each chunk. Returns the
/// file's FNV-1a hash.
fn read(cpus: usize, first: u32, moves: &mut Moves) -> Result<u64, Box<dyn Error>> {
    let mut options = OpenOptions::new();
    options.read(true);
    let file = File::open("/INPUT.BIN", &options).map_err(debug)?;
    let mut buffer = alloc::vec![0; CHUNK];
    let (mut hash, mut offset) = (0xcbf2_9ce4_8422_2325_u64, 0);
    loop {
        let count = file.read_at(offset, &mut buffer).map_err(debug)?;
        if count == 0 {
            return Ok(hash);
        }
        for byte in buffer.iter().take(count) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
        offset += count as u64;
        moves.move_to(first, offset as usize / CHUNK % cpus)?;
    }
}

/// Writes the hash to the disk once for each CPU, after moving the disk's vectors there.
fn write(cpus: usize, first: u32, hash: u64, moves: &mut Moves) -> Result<(), Box<dyn Error>> {
    let mut options = OpenOptions::new();
    options.write(true);
    options.create(true);
    let mut file = File::open("/output.txt", &options).map_err(debug)?;
    for cpu in 0..cpus {
        moves.move_to(first, cpu)?;
        file.write(format!("checksum {hash:016x}\n").as_bytes()).map_err(debug)?;
        file.flush().map_err(debug)?;
    }
    Ok(())
}

impl Moves {
    /// Moves the disk's vectors to a CPU. A refusal is not an error.
    fn move_to(&mut self, first: u32, cpu: usize) -> Result<(), IrqError> {
        let affinity = IrqAffinity::Fixed(CpuId(cpu));
        for vector in first..first + VECTORS {
            match with_msi(|msi| msi.set_vector_affinity(&vector_of(vector), affinity)) {
                Ok(()) => self.done += 1,
                Err(IrqError::Unsupported) => self.refused += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Allocates a vector at each CPU and sends its message. Returns the CPUs that took the interrupts.
fn send_to_each(cpus: usize) -> Result<Vec<Option<usize>>, Box<dyn Error>> {
    let send = |cpu| {
        let message = CpuMessage::new(cpu)?;
        let taken_by = message.send();
        message.free()?;
        Ok(taken_by)
    };
    (0..cpus).map(send).collect()
}

/// Receives interrupts. The lines of output are facts for the program that logs instructions.
fn be_watched() -> Result<(), Box<dyn Error>> {
    let start = ax_hal::time::monotonic_time_nanos();
    let message = CpuMessage::new(0)?;
    message.send().ok_or("the first message was lost")?;
    let first = ax_hal::time::monotonic_time_nanos() - start;
    println!("adopter: first interrupt after {first} ns");
    let handler = cpu_message::handle as *const ();
    println!("{{\"watched\":{{\"ready\":{{\"handler\":\"{:x}\"}}}}}}", handler.addr());
    ax_runtime::console::take_input().and_then(|input| input.wait_readable()).map_err(debug)?;
    for _ in 0..WATCHED {
        message.send().ok_or("a message was lost")?;
    }
    println!("{{\"watched\":\"done\"}}");
    message.free()?;
    Ok(())
}

/// Allocates and frees a vector up to [`ROUNDS`] times, until this fails. Returns the number of
/// successful rounds and the last result.
fn allocate_and_free() -> (u32, Result<(), IrqError>) {
    for round in 0..ROUNDS {
        let result = with_msi(|msi| {
            let allocation = msi.allocate(MsiRequest::new(MsiDeviceId(OTHER_DEVICE), 1))?;
            let vector = allocation.vectors().first().ok_or(IrqError::NotFound)?;
            msi.set_vector_enabled(vector, true)?;
            msi.free(allocation)
        });
        if result.is_err() {
            return (round, result);
        }
    }
    (ROUNDS, Ok(()))
}

/// Returns the INTID of the disk's first vector. The disk is the only device with messages so far.
fn first_vector() -> Option<u32> {
    let has_route = |intid: &u32| {
        let irq = gic_irq(*intid);
        somehal::irq::resolve_irq_route(irq) != irq
    };
    (32..1020).chain(8192..8256).find(has_route)
}

/// Returns a handle to the vector with this INTID. The provider identifies vectors by INTID.
fn vector_of(intid: u32) -> MsiVector {
    MsiVector::new(MsiVectorIndex(0), MsiEventId(0), gic_irq(intid))
}

fn gic_irq(intid: u32) -> IrqId {
    let domain = somehal::irq::domain_by_kind_fast(somehal::irq::IrqDomainKind::AArch64Gic);
    IrqId::new(domain.unwrap_or(somehal::irq::AARCH64_GIC_DOMAIN), HwIrq(intid))
}

fn with_msi<R>(work: impl FnOnce(&mut Msi) -> Result<R, IrqError>) -> Result<R, IrqError> {
    let msi = rdrive::get_one::<Msi>().ok_or(IrqError::NotFound)?;
    let mut msi = msi.lock().map_err(|_| IrqError::Busy)?;
    work(&mut msi)
}

fn debug(error: impl core::fmt::Debug) -> String {
    format!("{error:?}")
}
