//! Interrupt timelines in Chrome's trace format, which Perfetto can open.
//!
//! ```
//! use doorbell_timeline::{ChromeWriter, FlowPoint, Span, Track, interrupt_name};
//!
//! let (device, cpu) = (Track { process: 1, thread: 1 }, Track { process: 2, thread: 2 });
//! let mut file = Vec::new();
//! let mut out = ChromeWriter::new(&mut file)?;
//! out.process(1, "devices")?;
//! out.track(device, "disk")?;
//! out.process(2, "CPUs")?;
//! out.track(cpu, "CPU 0")?;
//! // The disk writes a message, and the CPU takes an LPI because of it.
//! out.slice(device, Span::new(100, 140), "vector 0", serde_json::Value::Null)?;
//! out.flow(device, 100, 1, FlowPoint::Start)?;
//! out.slice(cpu, Span::new(300, 900), &interrupt_name(8192), serde_json::Value::Null)?;
//! out.flow(cpu, 300, 1, FlowPoint::End)?;
//! out.finish(&serde_json::json!({ "flows": 1 }))?;
//! let document: serde_json::Value = serde_json::from_slice(&file)?;
//! assert_eq!(document["traceEvents"].as_array().map(Vec::len), Some(12));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod chrome;
mod names;

pub use chrome::{ChromeWriter, FlowPoint, Span, Track};
pub use names::{command, command_name, interrupt_name};
