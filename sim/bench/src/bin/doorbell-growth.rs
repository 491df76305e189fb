//! Prints how costs and memory grow, in the form of the tables in `docs/measurements.md`.
#![forbid(unsafe_code)]

use doorbell_bench::growth::{self, Dimension, Growth, Row};
use peak_alloc::PeakAlloc;
use std::error::Error;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

fn main() -> Result<(), Box<dyn Error>> {
    let growth = growth::measure(&|| HEAP.current_usage())?;
    for dimension in Dimension::ALL {
        print_rows(&growth, dimension);
    }
    print_memory(&growth);
    Ok(())
}

/// Prints times relative to the first value in each row. Absolute times differ between machines,
/// whereas their growth hardly varies.
fn print_rows(growth: &Growth, dimension: Dimension) {
    let values: Vec<_> = dimension.values().iter().map(|value| format!(" {value} |")).collect();
    println!("| {dimension} |{} grows |", values.concat());
    println!("|---|{}", "---|".repeat(values.len() + 1));
    for row in growth.rows.iter().filter(|row| row.dimension == dimension) {
        println!("| {} |{} {} |", row.operation, relative(row), row.trend());
    }
    println!();
}

fn relative(row: &Row) -> String {
    let first = row.points.first().map_or(1.0, |(_, first)| *first);
    let times: Vec<_> =
        row.points.iter().map(|(_, time)| format!(" {:.2} |", time / first)).collect();
    times.concat()
}

fn print_memory(growth: &Growth) {
    let memory = &growth.memory;
    println!("| memory | bytes |\n|---|---|");
    println!("| a machine of one vCPU without LPIs | {} |", memory.idle);
    println!("| each further vCPU, without LPIs | {:.0} |", memory.vcpu);
    println!("| each further vCPU, with an ITS and LPIs | {:.0} |", memory.vcpu_with_its);
    println!("| each mapped event beyond the first 4,096 | {:.1} |", memory.event);
}
