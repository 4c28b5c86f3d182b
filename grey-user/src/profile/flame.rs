//! Folded stacks as an interactive flame graph: one self-contained SVG.

use inferno::flamegraph::color::{BasicPalette, Palette};
use inferno::flamegraph::{Options, TextTruncateDirection, from_lines};

use crate::cli::Failure;

/// Draws it. Lines have one figure, or two for a difference. Nothing to draw is told as such.
pub(super) fn svg(title: &str, subtitle: &str, lines: &[String]) -> Result<Vec<u8>, Failure> {
    let mut options = Options::default();
    options.title = title.to_owned();
    options.subtitle = (!subtitle.is_empty()).then(|| subtitle.to_owned());
    options.count_name = "bytes".to_owned();
    // Green stands for memory in flame graphs.
    options.colors = Palette::Basic(BasicPalette::Mem);
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.deterministic = true;
    let mut out = Vec::new();
    from_lines(&mut options, lines.iter().map(String::as_str), &mut out)
        .map_err(|error| Failure::failed(format!("flame graph: {error}")))?;
    Ok(out)
}
