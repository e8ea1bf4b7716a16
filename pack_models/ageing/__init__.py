"""Ageing of cells: published calendar and cycle laws as a bank that ages many cells at once.

from pack_models.ageing import AgeingBank
bank = AgeingBank.from_model("naumann_lfp", n_cells=896, soc=0.5)
for ...:
    bank.accumulate(soc, temperature_K, dt_s)       # every step; cheap
bank.refresh()                                      # or by itself once per refresh_every_s
bank.capacity_factor, bank.resistance_factor        # (n_cells,)
bank.outside()                                      # hours and cycles beyond the models' measurements
"""

from pack_models.ageing.bank import AgeingBank, Knee
from pack_models.ageing.parameters import AgeingModel, ageing_model, ageing_names

__all__ = ["AgeingBank", "AgeingModel", "Knee", "ageing_model", "ageing_names"]
