//! Recorded runs, from files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use csv::{ReaderBuilder, StringRecord};
use flate2::read::MultiGzDecoder;
use forecastle_forecast::evaluation::Run;

/// The largest number that can be a row.
const ROWS: f64 = 1e9;

/// A table with a header.
struct Table {
    name: String,
    header: StringRecord,
    records: Vec<StringRecord>,
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
struct Column(usize);

impl Table {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
        let zipped = path.extension().is_some_and(|extension| extension == "gz");
        let text: Box<dyn Read> = if zipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let mut reader = ReaderBuilder::new().from_reader(text);
        let header = reader.headers().with_context(|| format!("{name} has no header"))?.clone();
        let records = reader.records().collect::<Result<_, _>>().with_context(|| format!("cannot read {name}"))?;
        Ok(Self { name, header, records })
    }

    fn column(&self, name: &str) -> anyhow::Result<Column> {
        let found = self.header.iter().position(|column| column.trim() == name);
        found.map(Column).with_context(|| {
            let known = self.header.iter().collect::<Vec<_>>().join(", ");
            format!("{} has no column `{name}`; it has {known}", self.name)
        })
    }

    /// A column that need not be there.
    fn optional(&self, name: &str) -> Option<Column> {
        self.column(name).ok()
    }
}

fn text(record: &StringRecord, column: Column) -> &str {
    record.get(column.0).unwrap_or_default().trim()
}

/// A number; `None` where there is none.
fn number(record: &StringRecord, column: Column) -> Option<f64> {
    text(record, column).parse().ok().filter(|value: &f64| value.is_finite())
}

/// What is known of CPU and I/O, which no protocol insists on.
struct Use {
    cpu: Option<Column>,
    io: [Option<Column>; 2],
}

impl Use {
    fn of(table: &Table) -> Self {
        Self { cpu: table.optional("%cpu"), io: [table.optional("rchar"), table.optional("wchar")] }
    }

    fn cpu_millis(&self, record: &StringRecord) -> f64 {
        // Of one core, in percent.
        self.cpu.and_then(|column| number(record, column)).unwrap_or(0.0).max(0.0) * 10.0
    }

    fn io_bytes(&self, record: &StringRecord) -> f64 {
        self.io.iter().flatten().filter_map(|column| number(record, *column)).sum::<f64>().max(0.0)
    }
}

/// Runs for a replay.
pub(crate) fn replay(path: &Path) -> anyhow::Result<Vec<Run>> {
    let table = Table::read(path)?;
    let (kind, status) = (table.column("process")?, table.column("status")?);
    let (start, end, time) = (table.column("start")?, table.column("complete")?, table.column("realtime")?);
    let (preset, needed, input) = (table.column("memory")?, table.column("peak_rss")?, table.column("input_size")?);
    let used = Use::of(&table);
    let run = |record: &StringRecord| {
        if text(record, status) != "COMPLETED" {
            return None;
        }
        let run = Run {
            kind: text(record, kind).to_owned(),
            input: number(record, input)?,
            preset: number(record, preset)?,
            start: number(record, start)?,
            end: number(record, end)?,
            needed: number(record, needed)?,
            time: number(record, time)?,
            cpu_millis: used.cpu_millis(record),
            io_bytes: used.io_bytes(record),
        };
        (run.preset > 0.0 && run.needed > 0.0 && run.time > 0.0).then_some(run)
    };
    let runs: Vec<Run> = table.records.iter().filter_map(run).collect();
    ensure!(!runs.is_empty(), "{} has no run that is COMPLETED and has all of its numbers", table.name);
    Ok(runs)
}

/// Runs for a split, each in its row; `None` where a number is missing or cannot be.
pub(crate) fn split(path: &Path) -> anyhow::Result<Vec<Option<Run>>> {
    let table = Table::read(path)?;
    let (kind, time) = (table.column("process")?, table.column("realtime")?);
    let (preset, needed, input) = (table.column("memory")?, table.column("rss")?, table.column("rchar")?);
    let used = Use::of(&table);
    let run = |record: &StringRecord| {
        let run = Run {
            kind: text(record, kind).to_owned(),
            input: number(record, input)?,
            preset: number(record, preset)?,
            start: 0.0,
            end: 0.0,
            needed: number(record, needed)?,
            time: number(record, time)?,
            cpu_millis: used.cpu_millis(record),
            io_bytes: used.io_bytes(record),
        };
        (run.preset > 0.0 && run.needed > 0.0 && run.time > 0.0).then_some(run)
    };
    Ok(table.records.iter().map(run).collect())
}

/// Rows in the order of one seed.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) history: Vec<usize>,
    pub(crate) sized: Vec<usize>,
}

/// Reads the order of a seed over so many rows.
pub(crate) fn order(path: &Path, seed: u64, rows: usize) -> anyhow::Result<Order> {
    let table = Table::read(path)?;
    let (seeds, role) = (table.column("seed")?, table.column("role")?);
    let (position, row) = (table.column("position")?, table.column("row")?);
    let mut found = Vec::new();
    for (line, record) in table.records.iter().enumerate() {
        if text(record, seeds).parse() != Ok(seed) {
            continue;
        }
        let place = number(record, position).filter(|place| place.abs() < ROWS);
        let index = text(record, row).parse::<usize>().ok().filter(|row| *row < rows);
        let (Some(place), Some(index)) = (place, index) else {
            bail!("{}, line {}: `{}` is no row of {rows}", table.name, line + 2, text(record, row));
        };
        found.push((text(record, role) == "history", place, index));
    }
    ensure!(!found.is_empty(), "{} has no order of the seed {seed}", table.name);
    found.sort_by(|a, b| a.1.total_cmp(&b.1));
    let of = |history: bool| found.iter().filter(|entry| entry.0 == history).map(|entry| entry.2).collect();
    Ok(Order { history: of(true), sized: of(false) })
}
