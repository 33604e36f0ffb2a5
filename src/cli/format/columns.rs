//! Columns of text as Go's tabwriter aligns them for Docker: at least 10 wide, 3 spaces between.

const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Cells end with a tab; what follows a line's last tab is in no column. A column is as wide as the widest
/// cell among the lines next to each other that have it.
pub(crate) fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut aligned = String::with_capacity(text.len() * 2);
    let mut widths = Vec::new();
    block(&lines, 0, lines.len(), &mut widths, &mut aligned);
    // The last line has no line break.
    aligned.pop();
    aligned
}

fn block(lines: &[Vec<&str>], from: usize, to: usize, widths: &mut Vec<usize>, aligned: &mut String) {
    let column = widths.len();
    let has_cell = |line: &Vec<&str>| line.len() > column + 1;
    let mut done = from;
    let mut at = from;
    while at < to {
        if !has_cell(&lines[at]) {
            at += 1;
            continue;
        }
        write(&lines[done..at], widths, aligned);
        let end = (at..to).find(|line| !has_cell(&lines[*line])).unwrap_or(to);
        let widest = lines[at..end].iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        widths.push((widest + PADDING).max(MIN_WIDTH));
        block(lines, at, end, widths, aligned);
        widths.pop();
        at = end;
        done = end;
    }
    write(&lines[done..to], widths, aligned);
}

fn write(lines: &[Vec<&str>], widths: &[usize], aligned: &mut String) {
    for line in lines {
        for (n, cell) in line.iter().enumerate() {
            aligned.push_str(cell);
            if let Some(width) = widths.get(n).filter(|_| n + 1 < line.len()) {
                let missing = width.saturating_sub(cell.chars().count());
                aligned.extend(std::iter::repeat_n(' ', missing));
            }
        }
        aligned.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_ten_wide_at_least_and_three_apart() {
        assert_eq!(
            align("REPOSITORY\tTAG\tSIZE\nalpine\tlatest\t7.8MB\n"),
            "REPOSITORY   TAG       SIZE\nalpine       latest    7.8MB\n"
        );
    }

    #[test]
    fn an_empty_column_in_the_middle_keeps_its_place() {
        assert_eq!(align("a\t\tb\n"), format!("a{}b\n", " ".repeat(19)));
    }

    #[test]
    fn a_line_without_cells_ends_a_column() {
        assert_eq!(align("a long first cell\tx\n\nb\ty\n"), "a long first cell   x\n\nb         y\n");
    }
}
