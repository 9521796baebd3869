from base_handler import handler_factory
from handler_model import init_function

handler = handler_factory(init_function=init_function, in_dim=4, layer_dims=[8, 6])
