//! What tables are made of: their drawing, and the texts of their cells. Pure.

use forecastle_resources::SizeClass;
use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Text;
use ratatui::widgets::{Cell, Row, Table};

use super::snapshot::{Gauge, QueueRow, RunRow, ShareRow};
use crate::output::printable;
use crate::quantities::{brief_bytes, brief_cores};

/// Draws a table: columns with their headings, widths, and whether they stand to the right.
pub(super) fn table(
    frame: &mut Frame<'_>,
    area: Rect,
    columns: &[(&'static str, Constraint, bool)],
    rows: Vec<Vec<Cell<'static>>>,
    focused: bool,
) {
    let heading = |(name, _, right): &(&'static str, Constraint, bool)| cell(*name, *right);
    let style = Style::new().add_modifier(if focused { Modifier::REVERSED } else { Modifier::UNDERLINED });
    let header = Row::new(columns.iter().map(heading)).style(style);
    let widths = columns.iter().map(|(_, width, _)| *width);
    frame.render_widget(Table::new(rows.into_iter().map(Row::new), widths).header(header), area);
}

pub(super) fn cell(text: impl AsRef<str>, right: bool) -> Cell<'static> {
    let text = Text::from(printable(text.as_ref()).replace(['\n', '\t'], " "));
    Cell::from(if right { text.right_aligned() } else { text })
}

/// `used/reserved/capacity`.
pub(super) fn cpu_text(gauge: Gauge) -> String {
    [gauge.used, gauge.reserved, gauge.capacity].map(brief_cores).join("/")
}

pub(super) fn memory_text(gauge: Gauge) -> String {
    [gauge.used, gauge.reserved, gauge.capacity].map(brief_bytes).join("/")
}

/// `used/reserved` of a run; `-/reserved` where it is not measured.
pub(super) fn used_of(run: &RunRow, gauge: Gauge, text: fn(u64) -> String) -> String {
    let used = if run.measured { text(gauge.used) } else { "-".to_owned() };
    format!("{used}/{}", text(gauge.reserved))
}

/// Seconds with one decimal, in five columns.
pub(super) fn seconds(millis: u64) -> String {
    if millis < 100_000 { format!("{}.{}s", millis / 1000, millis % 1000 / 100) } else { format!("{}s", millis / 1000) }
}

/// The end of an identifier, which tells more than its beginning.
pub(super) fn tail(text: &str, room: usize) -> String {
    let length = text.chars().count();
    if length <= room || room < 2 {
        return text.to_owned();
    }
    format!("…{}", text.chars().skip(length - room + 1).collect::<String>())
}

pub(super) fn class_heading(class: SizeClass) -> &'static str {
    match class {
        SizeClass::Tiny => "TINY",
        SizeClass::S => "S",
        SizeClass::M => "M",
        SizeClass::L => "L",
        SizeClass::Xl => "XL",
    }
}

pub(super) fn share(row: &ShareRow) -> Vec<Cell<'static>> {
    let amounts = |(cpu, memory): (u64, u64)| format!("{} / {}", brief_cores(cpu), brief_bytes(memory));
    let bound = |bound: Option<u64>, text: fn(u64) -> String| bound.map_or_else(|| "all".to_owned(), text);
    let maximum = format!("{} / {}", bound(row.maximum.0, brief_cores), bound(row.maximum.1, brief_bytes));
    vec![
        cell(&row.priority, false),
        cell(amounts(row.held), false),
        cell(amounts(row.guaranteed), false),
        cell(maximum, false),
    ]
}

pub(super) fn queue(row: &QueueRow) -> Vec<Cell<'static>> {
    let number = |number: u64| cell(number.to_string(), true);
    let mut cells = vec![
        cell(format!("{} {}", row.fleet, row.priority), false),
        number(row.ready),
        number(row.held_back),
        number(row.backing_off),
    ];
    cells.extend(row.unclaimed.map(number));
    cells.push(cell(format!("{:.1}", row.claims_per_second), true));
    cells
}
