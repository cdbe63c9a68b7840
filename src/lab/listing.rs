//! The text of listings: LIST as `ls -l` or Windows has it, NLST, MLSD facts (RFC 3659), MDTM
//! times. Pure.

use super::fs::Meta;

/// The three listing commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    List,
    Nlst,
    Mlsd,
}

/// How a listing looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub style: Style,
    /// LIST as on Windows.
    pub dos: bool,
    /// The folder and its parent come first.
    pub parents: bool,
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
/// `ls` shows the year instead of the time of day for what is older than half a year.
const HALF_YEAR_SECS: i64 = 182 * 86_400;

/// Year, month (1 to 12), day of a number of days since the Unix epoch (proleptic Gregorian).
fn civil(days: i64) -> (i64, usize, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (
        year,
        usize::try_from(month).unwrap_or(1),
        doy - (153 * mp + 2) / 5 + 1,
    )
}

/// The days since the Unix epoch of a date.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let yoe = year.rem_euclid(400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

/// The Unix time of `YYYYMMDDHHMMSS` in UTC; `None` if it is no time.
pub(super) fn parse_stamp(text: &[u8]) -> Option<i64> {
    if text.len() != 14 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |from: usize, to: usize| {
        text[from..to]
            .iter()
            .fold(0, |number, digit| number * 10 + i64::from(digit - b'0'))
    };
    let day = days(number(0, 4), number(4, 6), number(6, 8));
    let unix = day * 86_400 + number(8, 10) * 3600 + number(10, 12) * 60 + number(12, 14);
    // A day or an hour that does not exist comes back as another one.
    (stamp(unix).as_bytes() == text).then_some(unix)
}

/// `YYYYMMDDHHMMSS` in UTC, as MDTM and the `modify` fact have it.
pub(super) fn stamp(unix: i64) -> String {
    let (year, month, day) = civil(unix.div_euclid(86_400));
    let s = unix.rem_euclid(86_400);
    format!(
        "{year:04}{month:02}{day:02}{:02}{:02}{:02}",
        s / 3600,
        s / 60 % 60,
        s % 60
    )
}

/// The facts of one entry, up to and including the space before its name.
pub(super) fn facts(meta: &Meta) -> String {
    let kind = if meta.folder { "dir" } else { "file" };
    let modify = stamp(meta.modified);
    if meta.folder {
        format!("type={kind};modify={modify}; ")
    } else {
        format!("type={kind};size={};modify={modify}; ", meta.size)
    }
}

fn long(meta: &Meta, now: i64) -> String {
    let (year, month, day) = civil(meta.modified.div_euclid(86_400));
    let s = meta.modified.rem_euclid(86_400);
    let when = if (now - meta.modified).abs() < HALF_YEAR_SECS {
        format!("{:02}:{:02}", s / 3600, s / 60 % 60)
    } else {
        format!("{year:>5}")
    };
    let mode = if meta.folder {
        "drwxr-xr-x"
    } else {
        "-rw-r--r--"
    };
    let month = MONTHS.get(month - 1).unwrap_or(&"Jan");
    format!(
        "{mode}    1 ftp      ftp      {:>12} {month} {day:>2} {when} ",
        meta.size
    )
}

/// A line as IIS has it.
fn dos(meta: &Meta) -> String {
    let (year, month, day) = civil(meta.modified.div_euclid(86_400));
    let minutes = meta.modified.rem_euclid(86_400) / 60;
    let (hour, half) = (minutes / 60, if minutes < 720 { "AM" } else { "PM" });
    let hour = if hour % 12 == 0 { 12 } else { hour % 12 };
    let what = if meta.folder {
        format!("{:<20}", "      <DIR>")
    } else {
        format!("{:>20}", meta.size)
    };
    let (year, minute) = (year % 100, minutes % 60);
    format!("{month:02}-{day:02}-{year:02}  {hour:02}:{minute:02}{half} {what} ")
}

/// The lines of the folder itself and its parent.
fn parents(style: Style, now: i64) -> Vec<u8> {
    let meta = Meta {
        folder: true,
        size: 4096,
        modified: now,
    };
    let line = |name: &str, kind: &str| match style {
        Style::List => format!("{}{name}\r\n", long(&meta, now)),
        Style::Mlsd => facts(&meta).replace("type=dir", kind) + name + "\r\n",
        Style::Nlst => format!("{name}\r\n"),
    };
    let mut out = String::new();
    if style == Style::List {
        out.push_str("total 8\r\n");
    }
    out.push_str(&line(".", "type=cdir"));
    out.push_str(&line("..", "type=pdir"));
    out.into_bytes()
}

/// The whole listing.
pub(super) fn text(shape: Shape, entries: &[(Vec<u8>, Meta)], now: i64) -> Vec<u8> {
    let mut out = Vec::new();
    if shape.parents {
        out = parents(shape.style, now);
    }
    for (name, meta) in entries {
        match shape.style {
            Style::List if shape.dos => out.extend_from_slice(dos(meta).as_bytes()),
            Style::List => out.extend_from_slice(long(meta, now).as_bytes()),
            Style::Mlsd => out.extend_from_slice(facts(meta).as_bytes()),
            Style::Nlst => {}
        }
        out.extend_from_slice(name);
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_utc_across_leap_days() {
        assert_eq!(stamp(0), "19700101000000");
        assert_eq!(stamp(951_827_696), "20000229123456");
        assert_eq!(stamp(1_709_251_199), "20240229235959");
        assert_eq!(stamp(1_709_251_200), "20240301000000");
        for unix in [0, 951_827_696, 1_709_251_199, 1_709_251_200, -86_400] {
            assert_eq!(parse_stamp(stamp(unix).as_bytes()), Some(unix));
        }
        for wrong in ["20230229000000", "20241301000000", "2024", "2024022923595x"] {
            assert_eq!(parse_stamp(wrong.as_bytes()), None);
        }
    }

    #[test]
    fn windows_lists_the_month_first_and_half_days() {
        let meta = |folder| Meta {
            folder,
            size: 1234,
            modified: 951_827_696,
        };
        assert_eq!(dos(&meta(false)), "02-29-00  12:34PM                 1234 ");
        assert_eq!(dos(&meta(true)), "02-29-00  12:34PM       <DIR>          ");
    }
}
