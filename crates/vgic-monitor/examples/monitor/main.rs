//! A monitor whose guest has an SMMU and a virtio disk behind it. The monitor saves the machine
//! while an interrupt is pending, another one is masked, and a request is in flight, and restores
//! it in a new process:
//!
//! ```console
//! $ cargo run -p vgic-monitor --all-features --example monitor
//! ```

mod disk;
mod guest;
mod smmu;

use disk::Disk;
use smmu::Smmu;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use vgic_monitor::irq_routing::msix::{MsixTable, Signaled};
use vgic_monitor::irq_routing::virtio::Notification;
use vgic_monitor::irq_routing::{GsiSpace, Inputs, Invalidation, Router, Sender};
use vgic_monitor::machine_state::{MachineState, Parts};
use vgic_monitor::msi_types::{Cpu, Delivery, DeviceId};
use vgic_monitor::vgic::{AccessWidth, Sleep, Vcpu, Vgic, VgicConfig, VmMemory, its::ItsConfig};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

type Memory = GuestMemoryMmap<()>;
/// Registers by offset.
type Registers = std::collections::BTreeMap<u64, u64>;
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const ITS: u64 = 0x0808_0000;
const SMMU: u64 = 0x0905_0000;
const SMMU_END: u64 = SMMU + 0x2_0000;
const TABLE: u64 = 0x1000_0000; // in BAR 0 of the disk
const DISK: u64 = 0x1000_1000; // in another BAR
const NOTIFY: u64 = DISK + 0x100; // notification register of the queue
const CAPABILITY: u64 = 0x3f00_8040; // MSI-X capability, in configuration space
const CAPABILITY_END: u64 = CAPABILITY + 12;
const RAM: u64 = 0x4000_0000;
const RAM_BYTES: usize = 1 << 20;
/// DeviceID and StreamID of the disk, 00:01.0.
const DISK_ID: DeviceId = DeviceId::new(8);
const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

struct Machine {
    memory: Arc<Memory>,
    gic: Arc<Vgic>,
    smmu: Arc<Smmu>,
    table: Arc<MsixTable>,
    disk: Disk,
    /// Tells the thread that serves the disk about a notification.
    work: SyncSender<()>,
    /// Thread that runs the vCPU.
    vcpu_thread: Arc<OnceLock<Thread>>,
}

/// State of the machine except guest memory: of the interrupt controller and of vectors, of the
/// SMMU, and of the disk.
type Saved = (MachineState, [Registers; 2]);

impl Machine {
    /// Creates a machine. The receiver learns that the guest has notified the disk.
    fn new() -> Result<(Self, Vcpu, Receiver<()>)> {
        let memory = Arc::new(Memory::from_ranges(&[(GuestAddress(RAM), RAM_BYTES)])?);
        let vcpu_thread = Arc::<OnceLock<Thread>>::default();
        let kicked = vcpu_thread.clone();
        // If the thread does not sleep yet, its next `park` returns at once.
        let kick = Arc::new(move |_: Cpu| kicked.get().into_iter().for_each(Thread::unpark));
        let config =
            VgicConfig::new(1).with_lpi_id_bits(Some(14)).with_its(vec![ItsConfig::new(ITS)]);
        let (gic, mut vcpus) = Vgic::new(config, Arc::new(VmMemory(memory.clone())), kick)?;
        let its = gic.its(0).ok_or("one ITS was configured")?;
        let smmu = Arc::new(Smmu::new(memory.clone()));
        let inputs = Inputs::new(gic.clone()).with_its(its).with_translator(smmu.clone());
        let router = Arc::new(Router::new(GsiSpace::default(), inputs)?);
        smmu.router.get_or_init(|| Arc::downgrade(&router));
        let table = Arc::new(MsixTable::new(2, Sender::Device(DISK_ID), router)?);
        let (work, is_notified) = sync_channel(1);
        let disk = Disk::new(memory.clone(), table.clone())?;
        let vcpu = vcpus.pop().ok_or("one vCPU was configured")?;
        Ok((Self { memory, gic, smmu, table, disk, work, vcpu_thread }, vcpu, is_notified))
    }

    fn read(&self, address: u64, width: AccessWidth) -> u64 {
        match address {
            SMMU..SMMU_END => self.smmu.read(address - SMMU),
            _ => self.gic.read(address, width).unwrap_or(width.mask()),
        }
    }

    fn write(&self, address: u64, width: AccessWidth, value: u64) -> Result<()> {
        let bytes = &value.to_le_bytes()[..width.bytes() as usize];
        match address {
            SMMU..SMMU_END => self.smmu.write(address - SMMU, value)?,
            TABLE..DISK => self.table.write(address - TABLE, bytes),
            NOTIFY => _ = self.work.try_send(()),
            DISK..NOTIFY => self.disk.write(address - DISK, value),
            CAPABILITY..CAPABILITY_END => {
                self.disk.notifier.write_capability((address - CAPABILITY).try_into()?, bytes);
            }
            _ => self.gic.write_until_done(address, width, value)?,
        }
        self.gic.events().drain(|fault| eprintln!("guest: {fault}"));
        Ok(())
    }

    /// Runs the vCPU, once, until `io`, which serves the devices on this thread, returns.
    fn run(&self, vcpu: &mut Vcpu, io: impl FnOnce() -> Result<()>) -> Result<()> {
        let pause = AtomicBool::new(false);
        thread::scope(|scope| {
            let running = scope.spawn(|| self.run_vcpu(vcpu, &pause));
            let served = io();
            pause.store(true, Ordering::SeqCst);
            running.thread().unpark();
            running.join().map_err(|_| "the vCPU's thread panicked")??;
            served
        })
    }

    fn run_vcpu(&self, vcpu: &mut Vcpu, pause: &AtomicBool) -> Result<()> {
        self.vcpu_thread.get_or_init(thread::current);
        while !pause.load(Ordering::SeqCst) {
            if vcpu.run_guest(|inputs| inputs.irq) {
                guest::take_interrupt(self, vcpu)?;
            } else if vcpu.prepare_to_sleep() == Sleep::Ready {
                thread::park();
                vcpu.returned();
            }
        }
        Ok(())
    }

    fn parts(&self) -> Parts<'_> {
        Parts::new(&self.gic)
            .with_function("disk", &*self.table)
            .with_function("disk's vectors", &self.disk.notifier)
    }

    /// Serves a request. Its interrupt must have this outcome.
    fn serve(&self, request: &str, expected: Delivery) -> Result<()> {
        println!("monitor: serves {request}");
        let found = self.disk.serve()?;
        let is_expected = found == Some(Signaled::Sent(expected));
        is_expected.then_some(()).ok_or(format!("expected {expected:?}, not {found:?}").into())
    }

    /// Saves the machine, whose vCPU and devices have stopped.
    fn save(&self, vcpu: &mut Vcpu, mut file: &File) -> Result<()> {
        let interrupts = self.parts().save(std::slice::from_mut(vcpu), LIMIT)?;
        let devices = [&self.smmu.registers, &self.disk.registers].map(|it| lock(it).clone());
        let saved: Saved = (interrupts, devices);
        self.memory.write_all_volatile_to(GuestAddress(RAM), &mut file, RAM_BYTES)?;
        Ok(file.write_all(&serde_json::to_vec(&saved)?)?)
    }

    fn restore(&self, vcpu: &mut Vcpu, file: &Path) -> Result<()> {
        let mut file = File::open(file)?;
        self.memory.read_exact_volatile_from(GuestAddress(RAM), &mut file, RAM_BYTES)?;
        let (interrupts, [smmu, disk]): Saved = serde_json::from_reader(BufReader::new(file))?;
        *lock(&self.smmu.registers) = smmu;
        self.smmu.invalidate(&Invalidation::all())?;
        self.disk.restore(&disk)?;
        Ok(self.parts().restore(std::slice::from_mut(vcpu), &interrupts)?)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until the guest notifies the disk.
fn wait(is_notified: &Receiver<()>) -> Result<()> {
    is_notified.recv_timeout(LIMIT).map_err(|_| "the guest has not notified the disk".into())
}

/// Runs a guest until two requests are in the queue, and saves the machine once the first of them
/// is complete.
fn start(file: &File) -> Result<()> {
    let (machine, mut vcpu, is_notified) = Machine::new()?;
    guest::boot(&machine, &mut vcpu)?;
    machine.run(&mut vcpu, || {
        wait(&is_notified)?;
        machine.serve("request 0", Delivery::Pending)?;
        wait(&is_notified)
    })?;
    machine.serve("request 1, while the vCPU is paused", Delivery::Pending)?;
    let changed = machine.disk.notifier.notify(Notification::ConfigurationChange);
    println!("monitor: the disk's configuration changes, and its vector is masked: {changed:?}");
    println!("monitor: saves the machine while request 2 is in flight, and ends");
    machine.save(&mut vcpu, file)
}

/// Restores the machine, and runs its guest until it has unmapped the doorbell.
fn resume(file: &Path) -> Result<()> {
    let (machine, mut vcpu, is_notified) = Machine::new()?;
    machine.restore(&mut vcpu, file).map_err(|error| format!("{}: {error}", file.display()))?;
    println!("monitor: restored the machine in a new process");
    machine.run(&mut vcpu, || {
        // A disk usually serves its queue at once. This one waits until the guest has taken the
        // pending interrupt, which would otherwise coalesce with that of request 2.
        wait(&is_notified)?;
        machine.serve("request 2", Delivery::Pending)?;
        wait(&is_notified)?;
        machine.serve("request 3, whose interrupt is blocked", Delivery::Blocked)
    })?;
    guest::read_event(&machine)
}

fn main() -> Result<()> {
    if let Some(file) = std::env::args_os().nth(1) {
        return resume(Path::new(&file));
    }
    // Only this user may read the guest's memory.
    let file = tempfile::NamedTempFile::new()?;
    start(file.as_file())?;
    let program = std::env::current_exe()?;
    let status = std::process::Command::new(program).arg(file.path()).status()?;
    status.success().then_some(()).ok_or(format!("the new process ended with {status}").into())
}
