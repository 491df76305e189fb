//! A virtual machine whose CPUs count interrupts.
//!
//! Contains the only `unsafe` block of these tests, which gives KVM memory that outlives the
//! machine.

use crate::guest;
use doorbell_test_support::kvm::Failure;
use kvm_bindings::{
    KVM_CAP_X2APIC_API, KVM_MAX_CPUID_ENTRIES, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK,
    KVM_X2APIC_API_USE_32BIT_IDS, kvm_enable_cap, kvm_mp_state, kvm_msi, kvm_regs,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use msi_types::MsiMessage;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileMemory};
use x86_irq::message::{ApicMessage, DestinationFormat};
use x86_irq::{ApicId, ApicVector, CpuVector};

/// Time limit, after which a message counts as lost.
const LIMIT: Duration = Duration::from_secs(10);
/// CPUID leaf 1, ECX: x2APIC.
const X2APIC: u32 = 1 << 21;
/// Address of the task state segment that Intel's KVM needs for real mode; must not be in memory.
const TSS: usize = 0xfffb_d000;

/// The machine. Dropping it stops its CPUs.
pub(crate) struct Machine {
    cpus: Vec<Processor>,
    vm: VmFd,
    memory: GuestMemoryMmap,
}

struct Processor {
    id: ApicId,
    thread: Option<JoinHandle<()>>,
    events: Mutex<Receiver<Event>>,
}

/// Report of a CPU's thread.
enum Event {
    Ready,
    Stopped,
    Failed(String),
}

impl Machine {
    /// Starts CPUs with these APIC IDs, which wait for interrupts.
    pub(crate) fn start(ids: &[u32]) -> Result<Self, Failure> {
        let kvm = Kvm::new()?;
        let vm = kvm.create_vm()?;
        vm.set_tss_address(TSS)?;
        vm.create_irq_chip()?;
        let flags = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
        let mut x2apic = kvm_enable_cap { cap: KVM_CAP_X2APIC_API, ..Default::default() };
        x2apic.args[0] = flags.into();
        vm.enable_cap(&x2apic)?;
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), guest::MEMORY)])?;
        memory.write_slice(&guest::vector_table(), GuestAddress(0))?;
        memory.write_slice(guest::CODE, GuestAddress(guest::ENTRY))?;
        give_memory(&vm, &memory)?;
        let mut machine = Self { cpus: Vec::new(), vm, memory };
        for (cpu, id) in ids.iter().enumerate() {
            let processor = Processor::start(&kvm, &machine.vm, cpu, *id)?;
            machine.cpus.push(processor);
        }
        for cpu in &machine.cpus {
            match cpu.wait() {
                Ok(Event::Ready) => {}
                Ok(Event::Failed(why)) => return Err(why.into()),
                Ok(Event::Stopped) | Err(_) => return Err("a CPU did not get ready".into()),
            }
        }
        Ok(machine)
    }

    pub(crate) fn id(&self, cpu: usize) -> ApicId {
        self.cpus[cpu].id
    }

    /// Signals a message as the bus would. KVM accepts 32-bit APIC IDs here, and therefore also
    /// 8-bit IDs.
    pub(crate) fn signal(&self, message: MsiMessage) -> Result<(), Failure> {
        let msi = kvm_msi {
            address_lo: message.address_low(),
            address_hi: message.address_high(),
            data: message.data,
            ..Default::default()
        };
        match self.vm.signal_msi(msi)? {
            1.. => Ok(()),
            blocked => Err(format!("KVM delivered {message:x?} to nobody ({blocked})").into()),
        }
    }

    /// Returns the number of times that a CPU took a vector.
    pub(crate) fn count(&self, place: CpuVector) -> u32 {
        self.counts(place.cpu.index())[usize::from(place.vector.get())]
    }

    /// Returns the number of times that a CPU took each vector.
    pub(crate) fn counts(&self, cpu: usize) -> Vec<u32> {
        let counters = self.memory.get_slice(GuestAddress(guest::counters(cpu)), 0x400);
        let counters = counters.expect("the counters are within the memory");
        let counter = |vector: usize| {
            counters.get_atomic_ref::<AtomicU32>(vector * 4).expect("aligned and within")
        };
        (0..256).map(|vector| counter(vector).load(Ordering::Acquire)).collect()
    }

    /// Waits until a CPU has taken a vector `count` times.
    pub(crate) fn wait_for(&self, place: CpuVector, count: u32) -> Result<(), Failure> {
        let start = Instant::now();
        while self.count(place) < count {
            if start.elapsed() > LIMIT {
                return Err(
                    format!("{place} arrived {} times, not {count}", self.count(place)).into()
                );
            }
            std::thread::yield_now();
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let vector = ApicVector::new(guest::STOP).expect("legal");
        for cpu in &self.cpus {
            // A machine that failed may not stop; its threads end with the process.
            let message = ApicMessage::fixed(cpu.id, vector).encode(DestinationFormat::Kvm32);
            let _ = message.map(|message| self.signal(message));
        }
        for cpu in &mut self.cpus {
            if let Ok(Event::Stopped) = cpu.wait() {
                let _ = cpu.thread.take().map(JoinHandle::join);
            }
        }
    }
}

/// Maps the memory into the virtual machine. This needs `unsafe`, because KVM cannot know how long
/// the memory lives.
#[expect(unsafe_code, reason = "KVM receives a pointer to memory")]
fn give_memory(vm: &VmFd, memory: &GuestMemoryMmap) -> Result<(), Failure> {
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: guest::MEMORY as u64,
        userspace_addr: memory.get_host_address(GuestAddress(0))? as u64,
    };
    // SAFETY: The mapping has that size and belongs to the machine, which stops the CPUs before it
    // is unmapped. If a CPU does not stop, the mapping may disappear while the guest runs. The
    // guest then faults, because KVM maps no other memory.
    unsafe { vm.set_user_memory_region(region)? };
    Ok(())
}

impl Processor {
    fn start(kvm: &Kvm, vm: &VmFd, cpu: usize, id: u32) -> Result<Self, Failure> {
        let vcpu = vm.create_vcpu(id.into())?;
        let mut cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
        for leaf in cpuid.as_mut_slice().iter_mut().filter(|leaf| leaf.function == 1) {
            leaf.ecx |= X2APIC;
        }
        vcpu.set_cpuid2(&cpuid)?;
        let mut sregs = vcpu.get_sregs()?;
        (sregs.cs.base, sregs.cs.selector) = (0, 0);
        (sregs.ss.base, sregs.ss.selector) = (0, 0);
        let data = guest::counters(cpu);
        (sregs.ds.base, sregs.ds.selector) = (data, u16::try_from(data >> 4)?);
        vcpu.set_sregs(&sregs)?;
        let regs =
            kvm_regs { rip: guest::ENTRY, rsp: guest::stack(cpu), rflags: 2, ..Default::default() };
        vcpu.set_regs(&regs)?;
        // All CPUs but the first wait for an INIT and a startup interrupt.
        vcpu.set_mp_state(kvm_mp_state { mp_state: kvm_bindings::KVM_MP_STATE_RUNNABLE })?;
        let (sender, events) = channel();
        let thread = std::thread::spawn(move || run(vcpu, &sender));
        Ok(Self { id: ApicId::new(id), thread: Some(thread), events: Mutex::new(events) })
    }

    fn wait(&self) -> Result<Event, RecvTimeoutError> {
        self.events.lock().expect("no thread panicked").recv_timeout(LIMIT)
    }
}

/// Runs a CPU's thread. The receiver may be gone if another CPU failed.
fn run(mut vcpu: VcpuFd, events: &Sender<Event>) {
    loop {
        let event = match vcpu.run() {
            Ok(VcpuExit::IoOut(guest::PORT_READY, _)) => Event::Ready,
            Ok(VcpuExit::IoOut(guest::PORT_STOPPED, _)) => Event::Stopped,
            Ok(exit) => Event::Failed(format!("the guest ended with {exit:?}")),
            // Interrupted by a signal.
            Err(error) if error.errno() == 4 => continue,
            Err(error) => Event::Failed(format!("KVM_RUN failed: {error}")),
        };
        let go_on = matches!(event, Event::Ready);
        if events.send(event).is_err() || !go_on {
            return;
        }
    }
}
