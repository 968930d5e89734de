//! A job of one's own: the highest temperature of each station, from lines `station,celsius`.
//!
//! ```text
//! cargo run --release -p flotilla-services --example temperatures -- --input 'readings/*.csv' --output hottest
//! ```

use flotilla_services::mapreduce::Done;
use flotilla_services::mapreduce::hands::program;
use flotilla_services::mapreduce::typed::{Combine, Typed, TypedJob};

struct Hottest;

impl TypedJob for Hottest {
    type Key = String;
    type Value = f64;
    type Output = f64;

    fn map(&self, line: &str, emit: &mut dyn FnMut(String, f64)) -> Done {
        if let Some((station, celsius)) = line.split_once(',') {
            emit(station.to_owned(), celsius.trim().parse()?);
        }
        Ok(())
    }

    fn combine(&self) -> Option<Combine<f64>> {
        Some(f64::max)
    }

    fn reduce(
        &self,
        _: &String,
        values: &mut dyn Iterator<Item = f64>,
    ) -> Result<f64, Box<dyn std::error::Error + Send + Sync>> {
        Ok(values.fold(f64::NEG_INFINITY, f64::max))
    }
}

fn main() -> std::process::ExitCode {
    program::main("temperatures", |_| Ok(Box::new(Typed(Hottest))))
}
