# SPDX-License-Identifier: BSD-2-Clause
"""SQLAlchemy and Django in transaction mode: what their sessions, migrations and connection pools do to a pooler.

Each test runs directly and through pgspan (tests/live/drivers.py).
"""
import asyncio
import threading

import pytest

from drivers import _places, limit, place  # noqa: F401  (fixtures)

pytestmark = pytest.mark.slow  # its protocol is that of the other drivers: sanitizer runs do without

sa = pytest.importorskip("sqlalchemy")
django = pytest.importorskip("django")

from django.conf import settings  # noqa: E402
from sqlalchemy import orm  # noqa: E402

Base = orm.declarative_base()


class Author(Base):
    __tablename__ = "drv_author"
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.String(50), unique=True, nullable=False)
    books = orm.relationship("Book", back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "drv_book"
    id = sa.Column(sa.Integer, primary_key=True)
    author_id = sa.Column(sa.ForeignKey("drv_author.id"), nullable=False)
    title = sa.Column(sa.Text)
    price = sa.Column(sa.Numeric(8, 2))
    author = orm.relationship("Author", back_populates="books")


class Order(Base):
    __tablename__ = "drv_orders"
    customer = sa.Column(sa.BigInteger, primary_key=True, autoincrement=False)
    no = sa.Column(sa.Integer, primary_key=True, autoincrement=False)
    what = sa.Column(sa.Text)


APP_TABLES = [Author.__table__, Book.__table__]


@pytest.fixture
def engine(place):
    made = sa.create_engine(place.url(place.app, "postgresql+psycopg2"), pool_size=5, max_overflow=5)
    Base.metadata.drop_all(made, tables=APP_TABLES)
    Base.metadata.create_all(made, tables=APP_TABLES)
    yield made
    Base.metadata.drop_all(made, tables=APP_TABLES)
    made.dispose()


def test_sqlalchemy_session(engine):
    with orm.Session(engine) as session:
        session.add_all([Author(name=f"a{i}", books=[Book(title=f"b{i}/{j}", price=j) for j in range(5)]) for i in range(20)])
        session.commit()
        found = session.query(Author).options(orm.selectinload(Author.books)).order_by(Author.name).all()
        assert sum(len(a.books) for a in found) == 100
        session.delete(found[0])
        with session.begin_nested() as savepoint:
            session.add(Author(name="undone"))
            session.flush()
            savepoint.rollback()
        session.commit()
        assert session.query(sa.func.count(Book.id)).scalar() == 95
        session.add(Author(name="a5"))
        with pytest.raises(sa.exc.IntegrityError):
            session.commit()
        session.rollback()
        total = session.query(Author.name, sa.func.sum(Book.price)).join(Book).group_by(Author.name).order_by(Author.name).first()
        assert (total[0], int(total[1])) == ("a1", 10)


def test_sqlalchemy_core(engine):
    authors = Author.__table__
    with engine.begin() as conn:
        conn.execute(sa.insert(authors), [{"id": i, "name": f"n{i}"} for i in range(500)])
        assert conn.execute(sa.update(authors).where(authors.c.id < 10).values(name=authors.c.name + "!")).rowcount == 10
    with engine.connect().execution_options(stream_results=True) as conn:
        assert sum(1 for _ in conn.execute(sa.select(authors).order_by(authors.c.id))) == 500
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        assert conn.execute(sa.select(sa.func.count()).select_from(authors)).scalar() == 500
    with engine.connect().execution_options(isolation_level="SERIALIZABLE") as conn:
        assert conn.execute(sa.text("SHOW transaction_isolation")).scalar() == "serializable"
    with engine.connect() as conn:
        assert conn.execute(sa.text("SHOW transaction_isolation")).scalar() == "read committed"


def test_sqlalchemy_inspects(engine):
    seen = sa.inspect(engine)
    assert {"drv_author", "drv_book"} <= set(seen.get_table_names())
    assert [c["name"] for c in seen.get_columns("drv_book")] == ["id", "author_id", "title", "price"]
    assert seen.get_foreign_keys("drv_book")[0]["referred_table"] == "drv_author"
    assert seen.get_unique_constraints("drv_author")[0]["column_names"] == ["name"]


def test_sqlalchemy_two_phase(engine):
    with engine.connect() as conn:
        if conn.execute(sa.text("SHOW max_prepared_transactions")).scalar() == "0":
            pytest.skip("max_prepared_transactions is 0")
    with engine.connect() as conn:
        xact = conn.begin_twophase()
        conn.execute(sa.insert(Author.__table__), {"id": 1, "name": "twophase"})
        xact.prepare()
        xact.commit()
    with engine.connect() as conn:
        assert conn.execute(sa.select(Author.name)).scalar() == "twophase"


def test_sqlalchemy_threads(engine):
    def client(n):
        for i in range(10):
            with orm.Session(engine) as session:
                session.add(Author(name=f"t{n}/{i}"))
                session.commit()
                if session.query(Author).filter_by(name=f"t{n}/{i}").count() != 1:
                    wrong.append((n, i))
    wrong = []
    threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_sqlalchemy_asyncio(place):
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    async def whole():
        engine = create_async_engine(place.url(place.app, "postgresql+asyncpg"), pool_size=5)
        try:
            async with engine.begin() as conn:
                await conn.run_sync(lambda c: Base.metadata.drop_all(c, tables=APP_TABLES))
                await conn.run_sync(lambda c: Base.metadata.create_all(c, tables=APP_TABLES))
            async with AsyncSession(engine, expire_on_commit=False) as session:
                session.add_all([Author(name=f"a{i}", books=[Book(title="x", price=1)]) for i in range(20)])
                await session.commit()
                names = (await session.execute(sa.select(Author.name).order_by(Author.id))).scalars().all()
                stream = await session.stream(sa.select(Book.id).order_by(Book.id))
                count = len([r async for r in stream])

            async def client(n):
                async with AsyncSession(engine) as session:
                    return (await session.execute(sa.select(Author.name).where(Author.name == f"a{n}"))).scalar()
            return names, count, await asyncio.gather(*(client(n) for n in range(20)))
        finally:
            async with engine.begin() as conn:
                await conn.run_sync(lambda c: Base.metadata.drop_all(c, tables=APP_TABLES))
            await engine.dispose()
    names = [f"a{i}" for i in range(20)]
    assert asyncio.run(asyncio.wait_for(whole(), 25)) == (names, 20, names)


def test_sqlalchemy_shop(place):
    engine = sa.create_engine(place.url(place.shop, "postgresql+psycopg2"))
    Order.__table__.drop(engine, checkfirst=True)
    Order.__table__.create(engine)
    with orm.Session(engine) as session:
        session.add_all([Order(customer=c, no=n, what=f"{c}/{n}") for c in range(20) for n in range(3)])
        session.commit()
        assert session.get(Order, (7, 2)).what == "7/2"
        session.query(Order).filter_by(customer=7).update({"what": "x"})
        session.commit()
        assert session.query(sa.func.count()).filter(Order.what == "x").scalar() == 3
        assert [o.customer for o in session.query(Order).filter_by(no=0).order_by(Order.customer.desc()).limit(3)] == [19, 18, 17]
    engine.dispose()


# -- Django ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models():
    settings.configure(DATABASES={}, INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"], USE_TZ=True,
                       DEFAULT_AUTO_FIELD="django.db.models.AutoField", SECRET_KEY="x")
    from django.db import connections
    connections.settings = connections.configure_settings({"default": {"ENGINE": "django.db.backends.postgresql"}})
    django.setup()
    from django.db import models as m

    class Note(m.Model):
        title = m.CharField(max_length=50, unique=True)
        made = m.DateTimeField(auto_now_add=True)
        extra = m.JSONField(null=True)
        amount = m.DecimalField(max_digits=8, decimal_places=2, default=0)

        class Meta:
            app_label = "drv"

    return Note


@pytest.fixture
def note(place, models):
    """The model, with its table new, on connections to *place*."""
    from django.db import connection, connections
    connection.close()
    k = place.app
    connections.databases["default"].update({"NAME": k["dbname"], "USER": k["user"], "PASSWORD": k["password"], "HOST": k["host"],
                                             "PORT": k["port"], "CONN_MAX_AGE": None})
    connection.settings_dict.update(connections.databases["default"])
    with connection.cursor() as cur:
        cur.execute("DROP TABLE IF EXISTS drv_note")
    with connection.schema_editor() as editor:
        editor.create_model(models)
    yield models
    with connection.schema_editor() as editor:
        editor.delete_model(models)
    connection.close()


def test_django_queries(note):
    from django.db.models import Count, F, Sum
    note.objects.bulk_create([note(title=f"n{i}", amount=i, extra={"tags": [i]}) for i in range(200)])
    assert note.objects.filter(amount__lt=10).update(amount=F("amount") + 1) == 10
    assert note.objects.aggregate(Sum("amount"), Count("id")) == {"amount__sum": 19910, "id__count": 200}
    assert note.objects.get(extra__tags=[7]).title == "n7"
    one, made = note.objects.get_or_create(title="n7")
    assert (one.title, made) == ("n7", False)
    note.objects.update_or_create(title="new", defaults={"amount": 3})
    assert note.objects.filter(title__in=["new", "n1"]).delete()[0] == 2


def test_django_transactions(note):
    from django.db import IntegrityError, connection, transaction
    with transaction.atomic():
        note.objects.create(title="kept")
        with pytest.raises(IntegrityError):
            with transaction.atomic():
                note.objects.create(title="undone")
                note.objects.create(title="kept")
        assert note.objects.count() == 1
        list(note.objects.select_for_update().all())
    ran = []
    with transaction.atomic():
        transaction.on_commit(lambda: ran.append(1))
    assert ran == [1]
    assert not connection.in_atomic_block


def test_django_server_side_cursor(note):
    note.objects.bulk_create([note(title=f"n{i}") for i in range(500)])
    # In autocommit Django declares a cursor WITH HOLD.
    assert sum(1 for _ in note.objects.order_by("id").iterator(chunk_size=50)) == 500
    from django.db import transaction
    with transaction.atomic():
        assert sum(1 for _ in note.objects.order_by("id").iterator(chunk_size=50)) == 500
    assert note.objects.count() == 500


def test_django_migrations(note):
    from django.core.management import call_command
    from django.db import connection
    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import Group, User
    user = User.objects.create_user("someone", password="x")
    user.groups.add(Group.objects.create(name="g"))
    assert User.objects.filter(groups__name="g").get().username == "someone"
    assert "auth_user" in connection.introspection.table_names()
    for app in ("auth", "contenttypes"):
        call_command("migrate", app, "zero", verbosity=0)
    with connection.cursor() as cur:
        cur.execute("DROP TABLE django_migrations")


def test_django_time_zone_stays(note):
    from django.db import connection
    for _ in range(20):
        with connection.cursor() as cur:
            cur.execute("SHOW timezone")
            assert cur.fetchone() == ("UTC",)


def test_django_connection_lost(note):
    from django.db import OperationalError, InterfaceError, connection, transaction
    with pytest.raises((OperationalError, InterfaceError)):
        with transaction.atomic(), connection.cursor() as cur:
            cur.execute("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(1)")
    connection.close()
    assert note.objects.count() == 0
