"""The two stocks of names: texts of the kinds of training are made of one, held-out texts of the other.

They share no family, form or word.
"""

# ruff: noqa: RUF001, letters of other languages are meant

from flax_transformer.data.manifests.names import Stock, family


def _row(text: str, separator: str = ",") -> tuple[str, ...]:
    """The entries between the separators."""
    return tuple(" ".join(entry.split()) for entry in text.split(separator))


SEEN = Stock(
    families=(
        # German
        family(
            "b br d f fl g h j k kl kr l m n p r s sch st t w z",
            "a e i o u ä ö ü au ei ie",
            "- n r l ck tz rg hm ss ld ff",
            "mann er berg burg feld hoff stein meyer bach hausen",
        ),
        # Dutch
        family(
            "b d g h j k l m n p r s v w z",
            "a e i o u aa ee oo ij oe ui eu",
            "n r l k t s rk nk st",
            "sen stra ma veld huis dijk berg kamp aert",
        ),
        # Scandinavian
        family(
            "b br d f fj g h k l m n r s sk st sv t v",
            "a e i o y å ä ö ø æ",
            "- n r l nd g ng lt rk",
            "sson sen gård lund ström berg vik rud quist",
        ),
        # English
        family(
            "b bl br c ch cl d dr f g gr h j k l m n p pr r s sh st t th w wh",
            "a e i o u ea oo ai ee",
            "n r l ck t s rd nd lm ng x",
            "ton ley ford well son ham worth wood shire by",
        ),
        # French
        family(
            "b br c ch d f g gr j l m n p pl r s t tr v",
            "a e é è i o u ou ai eau eu oi",
            "n r l s t x c",
            "ard eau et ier in ot elle ais ois",
        ),
        # Italian
        family(
            "b c ch d f g gl l m n p qu r s sc t tr v z",
            "a e i o u ia io à",
            "- n r l ll tt cc zz",
            "ini etti ello ucci one ari ano esi oni",
        ),
        # Spanish
        family(
            "b c ch d f g j l ll m n ñ p qu r s t v z",
            "a e i o u á é í ó ue ie",
            "- n r l s z",
            "ez ero ada illo ina ales ora ura",
        ),
        # Polish
        family(
            "b br c cz d dr g gr h j k kr l m n p pr r s sz t tr w z ż ł",
            "a e i o u y ó ą ę",
            "n r l k sz cz w ń ść",
            "ski wicz ak czyk owa ek ko",
        ),
        # Czech and Serbian
        family(
            "b d g h k l m n p r s š t v z ž č",
            "a e i o u í á ý",
            "n r l k v c d",
            "ić ov ková ík áček enko nik",
        ),
        # Turkish
        family(
            "b c ç d e g h k l m n p r s ş t y z",
            "a e ı i o ö u ü",
            "n r l k t z m ğ",
            "oğlu can demir tekin lar er gül",
        ),
        # Arabic
        family(
            "b d f gh h j kh l m n q r s sh t w y z",
            "a i u aa ee ou",
            "- n r l d m b f h",
            "i iya awi oudi een ani ah",
        ),
        # Indian
        family(
            "b bh ch d dh g gh j k kh l m n p r s sh t v y",
            "a e i o u aa ee",
            "- n r l m t sh",
            "esh ani pur wala kar nath dev iya appa",
        ),
        # Chinese
        family(
            "b ch d f g h j l m n p q r s sh t w x y z zh",
            "a ai an ang ao e ei en eng i ia ian iang iao ie in ing iu o ong ou u ua uan ui un uo",
            "-",
            "hua feng da long ming tai xin sheng",
        ),
        # Japanese
        family(
            "b ch d f g h k m n r s sh t ts w y z ky ry",
            "a i u e o ō ū",
            "- n",
            "moto yama kawa shima da mura no ya hara",
        ),
        # Korean
        family(
            "b ch d g h j k m n p s t w y",
            "a ae e eo eu i o u ye",
            "n ng k l m p",
            "jin hae sung won dong guk il",
        ),
        # Thai
        family(
            "b ch d k kh l n ng p ph r s t th w",
            "a e i o u ai aa ua ia",
            "- n ng t m k",
            "chai porn wat sak siri nong thong",
        ),
        # of no language: any letters
        family(
            "b c d f g h j k l m n p q r s t v w x y z ß ç ğ ñ ś ř ț ð þ đ ħ ł ń ň ŕ š ť ž ź ż ģ ķ ļ ņ ď č ć",
            "a e i o u y á à â ä å é è ê ë í î ï ó ô ö ø ú û ü ý æ œ ı b k s t x ã õ ő ű ā ē ī ō ū ą ę ė į ų ů ě ă ơ ư",
            "- b c d f g k l m n p r s t x z",
            "x q k z v o a s t",
        ),
    ),
    forms=_row(
        """
        GmbH | GmbH | GmbH & Co. KG | GmbH & Co KG | AG | KG | OHG | e.K. | mbH | Ltd | Ltd | Ltd. | Limited |
        LTD | Co Ltd | Co., Ltd. | Co., Ltd | Co. Ltd. | CO LTD | LLC | LLC | L.L.C. | Inc | Inc. | Corp. | Corp
        | Corporation | Company | Co. | & Co. | LP | L.P. | LLP | PLC | plc | BV | BV | B.V. | NV | N.V. | SA |
        S.A. | SA | SARL | S.A.R.L. | SAS | S.A.S. | SpA | S.p.A. | SPA | Srl | S.r.l. | S.R.L. | SL | S.L. |
        SLU | AB | AB | A/S | AS | ApS | Pte Ltd | Pte. Ltd. | PTE LTD | Pty Ltd | Pty. Ltd. | (Pty) Ltd |
        Pvt Ltd | Pvt. Ltd. | (Pvt) Ltd | Private Limited | (Private) Limited | Sdn Bhd | Sdn. Bhd. | SDN BHD |
        sp. z o.o. | Sp. z o.o. | Sp.j. | s.r.o. | a.s. | d.o.o. | FZE | FZCO | FZ-LLC | WLL | Est. | Ltda |
        Ltda. | S.A. de C.V. | S. de R.L. | Ltd. Şti. | A.Ş. | San. ve Tic. A.Ş. | Tic. Ltd. Şti. | JSC | OOO |
        Tbk | K.K. | KK | Holding | Group | Groupe | Gruppe | e Figli | & Sons Ltd | d.d. | k.d. | D.N.O. | a.d. |
        Sh.p.k. | S.C.A. | S.C.S. | SNC | S.n.c. | S.a.s. | EURL | SASU | SCOP | eG | e.G. | PartG | V.O.F. | VoF |
        CVBA | B.V.B.A. | HB | KB | ANS | Sp.k. | S.K.A. | v.o.s. | k.s. | ZAO | PAO | TOO | PrJSC | TOV | C.A. |
        S.A.C. | E.I.R.L. | Y.K. | DMCC | B.S.C. | Q.S.C. | K.S.C.C. | Bhd. | Tbk. | CV | UD. | P.C. | Coop. | Assn. |
        Mfg. | Intl. | Ent. | Enterpr. | Grp. | Hldgs. | Cia. | Hnos. | Fils | Gebr. | Ges.m.b.H. | Unltd. | O.E. |
        E.P.E. | Sàrl | Sagl | S.A.L. | S.A.R.F. | Perusahaan | Coy. | Tr. | Kom. Şti. | Koll. Şti.
        """,
        "|",
    ),
    trades=_row(
        """
        Timber, Textiles, Foods, Chemicals, Trading, Trading, Import, Export, Imports, Exports, Tools, Steel,
        Paper, Plastics, Motors, Supplies, Ceramics, Marine, Home, Sports, Electric, Industries, Industrial,
        Partners, Enterprises, International, Manufacturing, Mills, Works, Products, Global, Agro, Farms,
        Metals, Glass, Furniture, Garments, Leather, Machinery, Tech, Technology, Solutions, Electronics,
        Commodities, Fisheries, Seafood, Distribution, Distributors, Wholesale, Retail, Stores, Brothers, Bros.,
        Bros, Sons, Family, Engineering, Components, Packaging, Pharma, Labs, Beverages, Wines, Spices, Rubber,
        Handel, Handels, Maschinenbau, Technik, Werke, Vertrieb, Möbel, Lebensmittel, Groothandel, Techniek,
        Commerce, Négoce, Industrie, Produits, Comercial, Alimentos, Importaciones, Textil, Maquinaria, Tessuti,
        Alimentari, Ceramiche, Meccanica, Legno, Ticaret, Sanayi, Tekstil, Handlowa, Przemysł, Obchod, Shoji,
        Sangyo, Kogyo, Trdg, Mfg, Intl, Ind., General Trading
        """,
    ),
    links=_row(
        """
        1 & Sons | 1 & Söhne | 1 et Fils | 1 & Fils | 1 e Hijos | 1 Hermanos | F.lli 1 | Fratelli 1 | 1 Bros. |
        Van der 1 | van den 1 | De 1 | Van 1 | Al 1 | Al-1 | El 1 | Bin 1 | The 1 | The 1 2 | New 1 | Royal 1 |
        Shri 1 | Sri 1 | San 1 | Santa 1 | St. 1 | La 1 | Le 1 | Les 1 | Nordic 1 | Golden 1 | Blue 1 | Great 1
        | Green 1 | 1 of 2 | 1 de 2 | 1 von 2 | 1's | Gebr. 1 | Gebrüder 1 | Mc1 | O'1 | D'1 | PT 1 | Dr. 1 |
        Chr. 1 | Joh. 1 | 1 United | First 1 | 1 Star | 1 Bay
        """,
        "|",
    ),
    goods=_row(
        """
        tiles, shirts, chairs, machine parts, coffee, shrimp, steel coils, wire, plywood, paper, toys, tyres,
        glassware, water pumps, solar panels, lamps, bicycles, gloves, oil, tuna, rice, tea, shoes, kitchenware,
        hand tools, bearings, resin, doors, cocoa beans, cables, bolts, nuts, screws, hinges, valves, pipes,
        fittings, flanges, gears, motors, batteries, paint, ethanol, acetone, adhesives, perfume, aerosols,
        pesticide, acid, caustic soda, lighters, fertilizer, pigments, ink, varnish, cleaner, detergent, soap,
        shampoo, lotion, powder, granules, pellets, flakes, film, foil, sheets, plates, panels, boards, bars,
        rods, tubes, beams, profiles, castings, forgings, yarn, fabric, towels, blankets, carpets, jackets,
        trousers, socks, hats, bags, belts, sofas, tables, mattresses, cushions, curtains, juice, wine, beer,
        vodka, water, milk powder, cheese, butter, meat, chicken, beef, fish, vegetables, fruit, apples,
        oranges, nuts in shell, beans, lentils, wheat flour, sugar, salt, pepper, spices, honey, noodles, pasta,
        biscuits, sauce, pulp, puree, seeds, kernels, fibre, printers, monitors, phones, speakers, chargers,
        cameras, fridges, ovens, fans, heaters, switches, sensors, connectors, circuit boards, spare parts,
        brake pads, filters, engines, gearboxes, pumps, compressors, generators, drills, saws, mixers, presses,
        looms, lifts, books, pens, posters, candles, ornaments, frames, mirrors, vases, plates of slate,
        stone slabs, cement, bricks, gravel, sand
        """,
    ),
    qualities=_row(
        """
        ceramic, cotton, office, green, frozen, copper, printing, garden, car, rubber, olive, canned, black,
        leather, wooden, LED, solar, pvc, stainless, galvanized, welded, hydraulic, electric, industrial,
        automotive, plastic, nylon, polyester, woollen, knitted, woven, printed, dried, roasted, ground, whole,
        fresh, chilled, organic, raw, refined, crude, liquid, solid, corrosive, flammable, coated, painted,
        white, red, blue, yellow, brown, assorted, used, new, spare, small, large, heavy, light, portable,
        wireless, digital, medical, dental, kitchen, bathroom, bedroom, outdoor, sports, kids, baby, ladies,
        mens, pet, wedding, party, seasonal, decorative, artificial, alloy, aluminium, iron, brass, zinc,
        titanium, carbon, glass, bamboo, oak, pine, teak, marble, granite, concrete, foam, paper, orange, apple,
        palm, soya, corn, wheat, potato, tomato, garlic, ginger, cashew, almond, peanut, salmon, squid, pork,
        dairy, vegetable, high density, low voltage, heavy duty, cold rolled, hot dipped, ready made,
        double walled, self adhesive, water based, food grade
        """,
    ),
    # Without those that the other stock's forms need.
    letters="BDGILMNOPRSVWXZ",
)

UNSEEN = Stock(
    families=(
        # Finnish
        family(
            "h j k l m n p r s t v",
            "aa ii uu yy ää öö ai ei au uo ie",
            "- n l s tt kk pp",
            "nen la lä sto niemi järvi mäki koski",
        ),
        # Hungarian
        family(
            "b cs d f gy h k l m n ny p r s sz t v zs",
            "a á e é i í o ő ö u ű",
            "- n r l k s gy",
            "házy ffy falvi szegi ári kúti hegyi",
        ),
        # Portuguese
        family(
            "b c d f g lh m n nh p qu r s t v",
            "a ã e ê i o õ u ão ei ou",
            "- m r l s",
            "eira inho alho ães ndes osa edo",
        ),
        # Greek
        family(
            "ch d g k l m n p ph ps r s t th v x",
            "a e i o ou y ai ei",
            "- n r s l",
            "idis opoulos akis ellis atos iadis ou",
        ),
        # Vietnamese
        family(
            "b d đ g h kh l m n ng nh ph qu t th tr v",
            "a â e ê o ô u i uy oa",
            "- n ng nh c p t",
            "hau truong thinh phuoc",
        ),
        # Swahili
        family(
            "b ch d f g j k l m mb mw n nd ng ny p r s t w",
            "a e i o u",
            "-",
            "kazi mbe ngwa shaji tuki",
        ),
    ),
    forms=_row(
        """
        Oy | Oyj | Kft. | Kft | Nyrt. | Zrt. | Bt. | Lda | Lda. | Unip. Lda | UAB | SIA | OÜ | EOOD | EAD | G.K.
        | S.A.E. | CC | ehf. | hf. | I.K.E. | Proprietary
        """,
        "|",
    ),
    trades=_row(
        """
        Shipyards, Orchards, Bakeries, Foundry, Cosmetics, Optics, Jewellers, Tobacco, Robotics, Aviation,
        Fertilisers, Kauppa, Tukku, Teollisuus, Kereskedelmi, Gyártó, Indústria, Comércio, Papelaria,
        Thuong Mai, Xuat Khau, Viwanda, Biashara, Confectionery
        """,
    ),
    links=_row(
        """
        1 ja 2 | 1 és Fia | 1 e Filhos | Irmãos 1 | Afoi 1 | Old 1 | Silver 1 | 1 Valley | 1 Cousins | Mama 1 |
        Kumpulan 1
        """,
        "|",
    ),
    goods=_row(
        """
        anchors, umbrellas, violins, telescopes, helmets, ladders, scooters, tents, wheelchairs, microscopes,
        turbines, transformers, propellers, chainsaws, barometers, olives, raisins, pistachios, chickpeas,
        oysters, anchovies, marmalade, vinegar, cider, rum, tobacco leaf, wool bales, denim, ribbons, buttons,
        zips, wigs, peat, kaolin, borax, glycerine, toluene, turpentine, naphtha, formaldehyde, xylene, wax
        """,
    ),
    qualities=_row(
        """
        pickled, smoked, candied, fermented, vintage, folding, inflatable, magnetic, ultrasonic, transparent,
        hollow, tempered, anodised, antique, embossed, quilted, waterproof, fireproof, velvet, linen, cedar,
        ebony, bronze, nickel, tungsten, saffron, vanilla, mustard, rye, quince
        """,
    ),
)
