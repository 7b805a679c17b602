"""What stands in e-mails beside the manifest: references, phones, terms, other dates and ports, headers, signatures."""

from collections.abc import Callable

from flax_transformer.data.manifests.freight import PORTS
from flax_transformer.data.manifests.names import name, party, person
from flax_transformer.data.manifests.phrasing import Sender

_OPENERS = (
    "Dear all,", "Hi team,", "Good day,", "Booking as below.", "Pls see below:", "FYI", "Hello,", "Dear Sirs,",
    "Good morning {person},",
    "Hi {person},", "Dear {person},", "Hello {person}, hope you are well.", "Dear Mr. {person}",
    "Hi all - new booking:", "To whom it may concern,",
    "BOOKING REQUEST", "SHIPPING INSTRUCTION", "Booking order {ref}", "New shipment, details below.",
    "Please find our booking:", "Bonjour,",
    "Guten Tag,", "Sehr geehrte Damen und Herren,", "Buenos días,", "Buongiorno,", "Hola {person},", "Beste {person},",
    "Hi there", "ATTN: {person}",
    "Dear partner,\nthank you for your mail.", "Hi {person},\n\nas discussed on the phone:",
    "Good afternoon\n\nhere is the next one.", "Job {ref}",
    "Transport order no. {ref}", "Our file {ref}", "Subject: booking {ref}", "Hey {person}, quick one:",
    "Booking no. {ref}", "S/I {ref} - draft",
)  # fmt: skip
_CLOSERS = (
    "Rgds", "Thanks & regards", "Pls confirm.", "Best regards, {person}", "Tks, {person}",
    "Kind regards\n{person}\nExport Department",
    "Thank you\n{person}", "Brgds/{person}", "Thanks!", "Please confirm by return.", "Let me know.\n{person}",
    "Mit freundlichen Grüßen\n{person}",
    "Cordialement,\n{person}", "Saludos,\n{person}", "Cordiali saluti\n{person}", "Met vriendelijke groet,\n{person}",
    "Best,\n{person}\n{company}",
    "Regards,\n{person}\n{company}\nTel {phone}", "BR\n{person}\nMob. {phone}",
    "With best regards\n{person}\n{company}\n{street}, {town}",
    "Many thanks\n\n{person}\n{mail}", "Awaiting your confirmation.",
    "Looking forward to your booking confirmation.\n{person}", "Thx {person}",
    "Please advise vessel and closing.\nRegards\n{person}", "This e-mail may be confidential.",
    "{person}\n--\n{company} - all business is done under our general terms.",
    "Kindly revert soonest.\nRgds/{person}", "What is the closing date?\n{person}", "Sent from my phone",
    "Pls send the confirmation to {mail}", "ASAP please!",
)  # fmt: skip
_LINES = (
    "Freight: {terms}", "Freight {terms}", "FRT {terms}", "Terms: {incoterm} {town}", "{incoterm} {port}",
    "Incoterm {incoterm}", "Payment: {days} days net",
    "Payment terms {days} days", "Our ref. {ref}", "Your ref: {ref}", "Ref {ref}", "PO {ref}", "Booking ref.: {ref}",
    "Contract no. {ref}", "Order {ref}",
    "Invoice {ref}", "B/L: {copies} originals", "Vessel: MV {vessel} V.{voyage}", "VSL/VOY {vessel} / {voyage}",
    "Voyage {voyage}", "Tel {phone}",
    "Phone: {phone}", "Fax {phone}", "E-mail: {mail}", "Contact: {person}", "Contact {person}, {phone}",
    "Notify: {company}", "Notify party: same as consignee",
    "Notify {company}, {town}", "Forwarder: {company}", "Agent: {company}", "ETA {date}", "ETA: {date}",
    "Cut-off {date}", "Closing: {date}", "Docs cut off {date}",
    "L/C expires {date}", "Ready on {date}", "via {port}", "T/S {port}", "Transhipment: {port}",
    "Place of delivery: {town}", "Final destination {town}",
    "HS code {hs}", "Temp. +{copies} C", "Free time {days} days", "Seal {seal}", "Seals: {seal}", "{size} container",
    "Equipment: 1 x {size}", "Marks: {marks}",
    "Insurance by buyer", "Documents by courier", "Rate as per quote {ref}", "Service contract {ref}",
    "Value USD {value}", "VAT no. {ref}", "Haulage: merchant",
    "Measurement {volume} cbm", "Pick-up {date} at {street}, {town}", "Volume: {volume} m3", "AES {hs}", "PG II",
    "Lieferbedingung {incoterm} {town}", "Zahlung {days} Tage netto",
    "Unsere Ref. {ref}", "Réf. {ref}", "Ref. cliente {ref}", "Paiement à {days} jours", "Pago a {days} días",
    "Ons kenmerk {ref}", "Rif. {ref}", "Ref. [{ref}]", "Mail <{mail}>", "Lot {{{ref}}}", "ID <{ref}>", "Code [{hs}]",
    "Value ~{value} EUR", "#{ref}", "Quote {ref} (valid ~{days} days)", "* {ref} *", "Rate USD {value} + {days}%",
)  # fmt: skip
_REMARKS = (
    "Payment {days} days as usual.", "Our ref. {ref}.", "We need {days} days free time.", "Freight {terms}.",
    "Please send the docs by courier.", "Terms {incoterm} {town}.",
    "The cargo is ready on {date}.", "Closing is {date}.", "Please also quote insurance.",
    "Rates as agreed with {person}.", "Call me at {phone} with any question.",
    "We can load on {date}.", "Transit via {port} is fine.", "Notify is {company}.", "Invoice follows.",
    "Quote {ref} applies.", "Pick up at {street}, {town}.",
    "Is there space?", "Please check the rate.", "{person} will send the VGM.", "ETA should be before {date}.",
    "We had {copies} shipments last month.",
)  # fmt: skip
_INTRODUCTIONS = (
    "please see our client's booking below and confirm.", "fyi, pls arrange.", "can you handle this one?",
    "as discussed, see below.", "pls book, details in the mail below.",
    "this came in today.", "forwarding you the order.", "kindly take care of this one.", "Please process.",
    "New order from our customer, see trail.",
)  # fmt: skip
_STREETS = (
    "{name}straße {n}",
    "{n} {name} Road",
    "{n} {name} St.",
    "rue {name} {n}",
    "Calle {name} {n}",
    "Via {name} {n}",
    "{name}weg {n}",
    "Unit {n}, {name} Park",
    "P.O. Box {n}",
)


class Clutter:
    """What a sender adds; all of it follows from the sender's draws."""

    def __init__(self, sender: Sender) -> None:
        self._sender, self._draw = sender, sender.draw

    def opener(self) -> str:
        """A greeting or a title."""
        return self._say(self._draw.pick(_OPENERS))

    def closer(self) -> str:
        """What a mail ends with."""
        return self._say(self._draw.pick(_CLOSERS))

    def line(self) -> str:
        """A labelled fact that belongs in no record."""
        return self._say(self._draw.pick(_LINES))

    def remark(self) -> str:
        """A sentence that belongs in no record."""
        return self._say(self._draw.pick(_REMARKS))

    def address(self) -> str:
        """As it stands below a name."""
        return self._say(
            self._draw.pick(
                (
                    "{street}, {town}",
                    "{street}\n{town}",
                    "{town}",
                    "{street}, {zip} {town}",
                    "{street}\n{zip} {town}, {phone}",
                )
            )
        )

    def seal(self) -> str:
        """Of a container."""
        return self._say(
            self._draw.pick(("seal {seal}", "SEAL {seal}", "/ seal no. {seal}", "(seal {seal})", "tare {hs}"))
        )

    def size(self) -> str:
        """Of a container, as it stands before its number."""
        return self._draw.pick(
            (
                "1x40'HC",
                "1x20'",
                "1 x 40HC",
                "1x20'DV",
                "40'HC",
                "20DV",
                "1 x 20' GP",
                "40' reefer",
                "1*40HQ",
                "2 TEU",
                "1x45'",
            )
        )

    def headers(self) -> str:
        """Of a mail that was forwarded or replied to."""
        top = self._draw.pick(
            (
                "---------- Forwarded message ---------",
                "-----Original Message-----",
                "Begin forwarded message:",
                "",
                "________________",
                "***",
            )
        )
        rows = ["From: {person} <{mail}>", "Sent: {date}", "To: {company}", "Subject: {subject}"]
        if self._draw.chance(0.4):
            rows = [row for row in rows if self._draw.chance(0.6)]
        subject = self._draw.pick(
            (
                "RE: booking",
                "FW: new booking",
                "Fwd: shipment {ref}",
                "Re: Re: space request",
                "booking {port}",
                "order {ref}",
                "AW: Buchung",
            )
        )
        return self._say("\n".join([top, *rows]).strip().replace("{subject}", subject))

    def introduction(self) -> str:
        """What is said above a forwarded mail."""
        return "\n".join(
            part
            for part in (self.opener() if self._draw.chance(0.6) else "", self._say(self._draw.pick(_INTRODUCTIONS)))
            if part
        )

    def _say(self, template: str) -> str:
        """Only the values that the template names are drawn."""
        values = {slot: make(self._sender) for slot, make in _VALUES.items() if f"{{{slot}}}" in template}
        return self._sender.say(template, **values)


def _reference(sender: Sender) -> str:
    draw = sender.draw
    letters = "".join(draw.pick("ABCDEFGHKLMNPQRSTVXZ") for _ in range(draw.pick((0, 1, 2, 3))))
    number, end = draw.digits(draw.pick((4, 5, 6, 8))), draw.pick(("", "", "-A", f"/{draw.digits(2)}"))
    return letters + draw.pick(("", "-", "/", "")) + number + end


def _phone(sender: Sender) -> str:
    draw = sender.draw
    form = draw.pick(("+{} {} {}", "+{} ({}) {}", "0{}-{}{}", "{} {} {}"))
    return form.format(1 + draw.below(98), draw.digits(3), draw.digits(draw.pick((4, 6, 7))))


def _mail(sender: Sender) -> str:
    draw = sender.draw
    host, someone = (name(draw, sender.stock).lower() for _ in range(2))
    return f"{draw.pick(('info', 'export', 'ops', someone))}@{host}.{draw.pick(('com', 'de', 'net', 'cn', 'it'))}"


def _street(sender: Sender) -> str:
    return sender.draw.pick(_STREETS).format(name=_name(sender), n=1 + sender.draw.below(300))


def _vessel(sender: Sender) -> str:
    kind = sender.draw.pick(("", " Star", " Express", " Bridge", " Maru", " Spirit"))
    return _name(sender) + kind


def _name(sender: Sender) -> str:
    return name(sender.draw, sender.stock)


def _one_of(*options: str) -> Callable[[Sender], str]:
    return lambda sender: sender.draw.pick(options)


def _digits(*lengths: int) -> Callable[[Sender], str]:
    return lambda sender: sender.draw.digits(sender.draw.pick(lengths))


# Slot of a template -> what fills it.
_VALUES: dict[str, Callable[[Sender], str]] = {
    "person": lambda sender: person(sender.draw, sender.stock),
    "company": lambda sender: party(sender.draw, sender.stock),
    "vessel": _vessel,
    "town": _name,
    "street": _street,
    "phone": _phone,
    "mail": _mail,
    "ref": _reference,
    "date": Sender.some_day,
    "port": lambda sender: sender.draw.pick(PORTS[sender.draw.pick(list(PORTS))]),
    "terms": _one_of("prepaid", "collect", "PREPAID", "payable at destination", "elsewhere"),
    "incoterm": _one_of("FOB", "CIF", "CFR", "EXW", "DAP", "FCA", "CIP"),
    "days": _one_of("7", "10", "14", "30", "45", "60"),
    "copies": _one_of("2", "3", "3/3", "5"),
    "voyage": lambda sender: sender.draw.digits(3) + sender.draw.pick("EWNS"),
    "hs": _digits(6, 8),
    "zip": _digits(5),
    "seal": lambda sender: sender.draw.pick(("", "", "SL", "ML-")) + sender.draw.digits(sender.draw.pick((6, 7))),
    "size": _one_of("40'HC", "20'DV", "40HQ", "20'", "45'HC"),
    "marks": _one_of("N/M", "as addressed", "NO MARKS"),
    "value": lambda sender: f"{1000 + sender.draw.below(90_000):,}",
    "volume": lambda sender: f"{(100 + sender.draw.below(6500)) / 100:.2f}",
}
