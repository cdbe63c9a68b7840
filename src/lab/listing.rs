//! The text of listings: LIST as `ls -l` has it, NLST, MLSD facts (RFC 3659), MDTM times. Pure.

use super::fs::Meta;

/// The three listing commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    List,
    Nlst,
    Mlsd,
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

/// The whole listing.
pub(super) fn text(style: Style, entries: &[(Vec<u8>, Meta)], now: i64) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, meta) in entries {
        match style {
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
    }
}
