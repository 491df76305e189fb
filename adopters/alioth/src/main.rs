//! Runs Alioth on top of `irq-routing`, with a guest that has more interrupts than Alioth has
//! routes.
//!
//! `backend SOCKET TAP MAC PAIRS` serves a network device over vhost-user, using Alioth's own
//! implementation. `boot stock|routed KERNEL INITRD COMMAND_LINE SOCKET…` runs a Linux guest with
//! such devices, either on unmodified Alioth or with the routes of `irq-routing` ([`routed`]).
#![cfg(all(target_os = "linux", target_arch = "aarch64"))]

mod routed;

use alioth::board::{BoardConfig, CpuConfig};
use alioth::hv::{Hypervisor, Kvm, KvmConfig};
use alioth::loader::{Executable, Payload};
use alioth::mem::mapped::RamBus;
use alioth::mem::{MemBackend, MemConfig};
use alioth::virtio::DeviceId;
use alioth::virtio::dev::net::tap::NetTapParam;
use alioth::virtio::dev::{DevParam, VirtioDevice};
use alioth::virtio::vu::backend::VuBackend;
use alioth::virtio::vu::frontend::VuFrontendParam;
use alioth::vm::Machine;
use routed::Routed;
use std::error::Error;
use std::ffi::CString;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

const MEMORY: u64 = 384 << 20;
/// Number of vCPUs. The guest of an unmodified Alioth hangs when it starts a second CPU.
const CPUS: u16 = 1;

/// Prints the errors that Alioth logs.
struct Errors;

impl log::Log for Errors {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Error
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("{}: {}", record.target(), record.args());
        }
    }

    fn flush(&self) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &*arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        ["backend", socket, tap, mac, pairs] => serve(socket, tap, mac, pairs.parse()?),
        ["boot", "stock", files @ ..] => boot(&Kvm::new(KvmConfig::default())?, files),
        ["boot", "routed", files @ ..] => {
            boot(&Routed::new(Kvm::new(KvmConfig::default())?), files)?;
            routed::report();
            Ok(())
        }
        _ => Err("backend SOCKET TAP MAC PAIRS | \
                  boot stock|routed KERNEL INITRD COMMAND_LINE SOCKET…"
            .into()),
    }
}

/// Serves a network device to one monitor.
fn serve(socket: &str, tap: &str, mac: &str, queue_pairs: u16) -> Result<(), Box<dyn Error>> {
    let listener = UnixListener::bind(socket)?;
    let mac = mac.parse().map_err(|error| format!("{mac}: {error:?}"))?;
    let if_name = Some(tap.to_owned());
    let parameters = NetTapParam { mac, mtu: 1500, queue_pairs, if_name, ..Default::default() };
    let memory = Arc::new(RamBus::new());
    let device = VirtioDevice::new("net", parameters.build("net")?, memory.clone(), false)?;
    let (connection, _) = listener.accept()?;
    VuBackend::new(connection, device, memory)?.run().map_err(Into::into)
}

/// Runs a guest until it turns its machine off.
fn boot<H: Hypervisor + 'static>(hypervisor: &H, files: &[&str]) -> Result<(), Box<dyn Error>> {
    log::set_logger(&Errors)?;
    log::set_max_level(log::LevelFilter::Error);
    let [kernel, initrd, command_line, sockets @ ..] = files else {
        return Err("the kernel, the initrd or the command line is missing".into());
    };
    let file = |name: &str| Box::from(Path::new(name));
    let config = BoardConfig {
        mem: MemConfig { size: MEMORY, backend: MemBackend::Memfd, ..Default::default() },
        cpu: CpuConfig { count: CPUS, ..Default::default() },
        coco: None,
    };
    let machine = Machine::new(hypervisor, config)?;
    machine.add_pl011()?;
    for (index, socket) in sockets.iter().enumerate() {
        let parameters = VuFrontendParam { socket: file(socket), id: DeviceId::NET };
        machine.add_virtio_dev(format!("net{index}"), parameters)?;
    }
    machine.add_payload(Payload {
        firmware: None,
        executable: Some(Executable::Linux(file(kernel))),
        initramfs: Some(file(initrd)),
        cmdline: Some(CString::new(*command_line)?),
    });
    machine.boot()?;
    machine.wait()?;
    Ok(())
}
