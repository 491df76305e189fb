//! Performs each operation of the hot paths a fixed number of times, and prints the numbers. A
//! simulator that runs this program counts the instructions of each operation.
#![forbid(unsafe_code)]

use doorbell_bench::{MeasureError, operations};

fn main() -> Result<(), MeasureError> {
    operations::perform(&mut |name, repetitions| println!("{name} {repetitions}"))
}
